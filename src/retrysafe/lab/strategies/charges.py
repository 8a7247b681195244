"""The shop's own table, in which every order that it took is a row: the effects, counted from outside."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # has no annotations

from retrysafe.lab.strategies.shop import Order

_CONNECTIONS = 8
_BUSY_S_MAX = 30.0
_COUNT = "SELECT reference, count(*) FROM charges GROUP BY reference"


class PostgresCharges:
    """The table in PostgreSQL.

    Args:
        url: of the database.
    """

    TABLE = (
        "CREATE TABLE IF NOT EXISTS charges (number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
        "reference text NOT NULL, customer text NOT NULL, item text NOT NULL, quantity int NOT NULL)"
    )
    INSERT = "INSERT INTO charges (reference, customer, item, quantity) VALUES ($1, $2, $3, $4) RETURNING number"

    def __init__(self, url: str) -> None:
        self._url = url
        self.pool: Any = None

    async def open(self, *statements: str) -> None:
        """Connect, and make the table, and what else these statements make."""
        self.pool = await asyncpg.create_pool(self._url, min_size=1, max_size=_CONNECTIONS, reset=_nothing)
        for statement in (self.TABLE, *statements):
            await self.pool.execute(statement)

    async def close(self) -> None:
        """Disconnect."""
        await self.pool.close()

    async def add(self, order: Order, connection: Any = None) -> int:
        """Take an order, in a transaction of its own or in that of a connection; its number."""
        values = (order.reference, order.customer, order.item, order.quantity)
        number: int = await (connection or self.pool).fetchval(self.INSERT, *values)
        return number


async def _nothing(_: Any) -> None:
    """What a connection is reset by: no statement leaves anything behind, and a reset would be one more round trip."""


class SqliteCharges:
    """The table in a file of SQLite. All threads of a process share one connection, one after the other.

    Args:
        path: of the file.
    """

    TABLE = (
        "CREATE TABLE IF NOT EXISTS charges (number INTEGER PRIMARY KEY, reference TEXT NOT NULL, "
        "customer TEXT NOT NULL, item TEXT NOT NULL, quantity INTEGER NOT NULL)"
    )
    INSERT = "INSERT INTO charges (reference, customer, item, quantity) VALUES (?, ?, ?, ?)"

    def __init__(self, path: Path) -> None:
        self._path = path
        self.lock = threading.Lock()
        self.database: sqlite3.Connection = sqlite3.connect(":memory:")

    async def open(self) -> None:
        """Open the file, and make the table."""
        await asyncio.to_thread(self._open)

    def _open(self) -> None:
        self.database = sqlite3.connect(self._path, _BUSY_S_MAX, isolation_level=None, check_same_thread=False)
        self.database.execute("PRAGMA journal_mode = WAL")
        self.database.execute("PRAGMA synchronous = FULL")
        self.database.execute(self.TABLE)

    async def close(self) -> None:
        """Let go of the file."""
        self.database.close()

    async def add(self, order: Order) -> int:
        """Take an order, in a transaction of its own; its number."""
        return await asyncio.to_thread(self._add, order)

    def _add(self, order: Order) -> int:
        with self.lock:
            return self.insert(order)

    def insert(self, order: Order) -> int:
        """Take an order in the transaction of the connection, whose lock is held; its number."""
        values = (order.reference, order.customer, order.item, order.quantity)
        return self.database.execute(self.INSERT, values).lastrowid or 0


async def count_postgres(url: str) -> dict[str, int]:
    """How many rows each reference has."""
    connection = await asyncpg.connect(url)
    try:
        return dict([tuple(row) for row in await connection.fetch(_COUNT)])
    finally:
        await connection.close()


def count_sqlite(path: Path) -> dict[str, int]:
    """How many rows each reference has."""
    database = sqlite3.connect(path, _BUSY_S_MAX)
    try:
        return dict(database.execute(_COUNT).fetchall())
    finally:
        database.close()
