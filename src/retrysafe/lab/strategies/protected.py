"""The shop behind retrysafe: the shop without a guard, and one more line; or three, for one commit."""

from __future__ import annotations

import asyncio
from typing import Any

from retrysafe.asgi import IdempotencyMiddleware
from retrysafe.lab.mutants.http import Response
from retrysafe.lab.strategies.guards import LEASE_S, NoGuard, NoGuardSqlite
from retrysafe.lab.strategies.shop import Order, Shop, Where, placed
from retrysafe.model import Response as Recorded
from retrysafe.operation import operation
from retrysafe.protocol.policy import Policy

_PLAIN = Policy(required=True, lease=f"{LEASE_S}s")
_TRANSACTIONAL = Policy(required=True, lease=f"{LEASE_S}s", transactional=True)


class CommitsWithRecord(NoGuard):
    """The order and its record are one commit in PostgreSQL."""

    async def place(self, key: str, order: Order) -> Response:  # noqa: ARG002 - the door knows it
        """Take it, and record the answer on the same connection."""
        async with self.charges.pool.acquire() as connection, connection.transaction():
            response = placed(await self.charges.add(order, connection), order)
            await operation().complete_within(connection, _recorded(response))
        return response


class CommitsWithRecordSqlite(NoGuardSqlite):
    """The order and its record are one commit in SQLite."""

    FILE = "records.db"

    async def open(self) -> None:
        """In the file of the records, which the store checkpoints."""
        await super().open()
        self.charges.database.execute("PRAGMA wal_autocheckpoint = 0")

    async def place(self, key: str, order: Order) -> Response:  # noqa: ARG002 - the door knows it
        """Take it, and record the answer on the same connection."""
        return await asyncio.to_thread(self._place, order)

    def _place(self, order: Order) -> Response:
        charges = self.charges
        with charges.lock:
            charges.database.execute("BEGIN IMMEDIATE")
            with charges.database:  # commits, or rolls back what raises
                response = placed(charges.insert(order), order)
                operation().complete_within(charges.database, _recorded(response))
        return response


def sqlite(where: Where) -> Any:
    """Records in SQLite."""
    return _protected(NoGuardSqlite(where), f"sqlite:///{where.folder / 'records.db'}", _PLAIN)


def sqlite_transactional(where: Where) -> Any:
    """Records in SQLite, and one commit."""
    return _protected(CommitsWithRecordSqlite(where), f"sqlite:///{where.folder / 'records.db'}", _TRANSACTIONAL)


def postgres(where: Where) -> Any:
    """Records in PostgreSQL."""
    return _protected(NoGuard(where), where.postgres, _PLAIN)


def postgres_transactional(where: Where) -> Any:
    """Records in PostgreSQL, and one commit."""
    return _protected(CommitsWithRecord(where), where.postgres, _TRANSACTIONAL)


def redis(where: Where) -> Any:
    """Records in Redis."""
    return _protected(NoGuard(where), where.redis, _PLAIN)


def _protected(shop: Shop, store: str, policy: Policy) -> IdempotencyMiddleware:
    return IdempotencyMiddleware(shop, store=store, scope="anonymous", policy=policy)


def _recorded(response: Response) -> Recorded:
    fields = tuple((name.encode(), value.encode()) for name, value in response.headers)
    return Recorded(response.status, fields, response.body)
