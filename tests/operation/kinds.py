"""Every kind of connection that a handler may complete its record on, each to a real database beside the records.

A place is a store and the table of orders in the same database; another process gets there by its `words`. A kind opens
a connection to it, begins a transaction, and hands out a `Unit`: what the handler passes on, how it writes an order,
and how it ends.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiosqlite
import asyncmy
import asyncpg  # type: ignore[import-untyped]  # it has no types
import psycopg
import pymysql
import sqlalchemy
from django.db import connections, transaction
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from retrysafe.stores.clock import Clock, host_clock
from retrysafe.stores.contract import Store
from retrysafe.stores.mysql import MysqlStore
from retrysafe.stores.mysql_server import Address
from retrysafe.stores.postgres import PostgresStore
from retrysafe.stores.sqlite import SqliteStore
from tests.operation.django_setup import set_up
from tests.stores import mariadb, postgres_server

set_up()

ORDERS = "CREATE TABLE IF NOT EXISTS orders (name VARCHAR(64) NOT NULL)"


@dataclass
class Unit:
    """One transaction. What ends it, and writes to it, waits if the connection is for asyncio."""

    connection: Any
    write: Callable[[str], Any]
    commit: Callable[[], Any]
    roll_back: Callable[[], Any]


# --- databases ------------------------------------------------------------------------------------


class OnSqlite:
    engine = "sqlite"

    def __init__(self, folder: Path, clock: Clock = host_clock) -> None:
        self.clock = clock
        self.arrive(str(folder / "shop.db"), SqliteStore(folder / "shop.db", clock=clock))
        self.store.open()
        self._do(ORDERS)

    def arrive(self, file, store=None):
        self.words = {"file": file}
        self.file = Path(file)
        self.store: Store = store or SqliteStore(file)
        self.url = f"sqlite:///{self.file}"
        self.django = {"ENGINE": "django.db.backends.sqlite3", "NAME": file}

    def orders(self, name):
        return self._do("SELECT count(*) FROM orders WHERE name = ?", name)[0][0]

    def _do(self, statement, *values):
        connection = sqlite3.connect(self.file)
        try:
            with connection:
                return connection.execute(statement, values).fetchall()
        finally:
            connection.close()

    @contextmanager
    def driver(self) -> Iterator[Unit]:
        connection = sqlite3.connect(self.file)
        try:
            yield Unit(
                connection,
                lambda name: connection.execute("INSERT INTO orders VALUES (?)", (name,)),
                connection.commit,
                connection.rollback,
            )
        finally:
            connection.close()

    @asynccontextmanager
    async def aio_driver(self) -> AsyncIterator[Unit]:
        async with aiosqlite.connect(self.file) as connection:

            async def write(name):
                await connection.execute("INSERT INTO orders VALUES (?)", (name,))

            yield Unit(connection, write, connection.commit, connection.rollback)

    aio_url = property(lambda self: self.url.replace("sqlite:", "sqlite+aiosqlite:"))


class OnPostgres:
    engine = "postgresql"

    def __init__(self, folder: Path, clock: Clock | None = None) -> None:
        self.clock = clock
        server, schema = postgres_server.server(), postgres_server.schema_of(folder)
        store = None if clock is None else postgres_server.OnManualClock(server.url(), clock, schema)
        self.arrive(server.url(), schema, server.port, store)
        self.store.open()
        with server.connect() as connection:
            connection.execute(ORDERS)

    def arrive(self, dsn, schema, port, store=None):
        self.words = {"dsn": dsn, "schema": schema, "port": port}
        self.dsn = dsn
        self.store: Store = store or PostgresStore(dsn, schema=schema)
        self.url = self.dsn.replace("postgresql:", "postgresql+psycopg:")
        self.aio_url = self.dsn.replace("postgresql:", "postgresql+asyncpg:")
        self.django = {
            "ENGINE": "django.db.backends.postgresql", "NAME": "shop", "USER": "owner", "HOST": "127.0.0.1",
            "PORT": port,
        }  # fmt: skip

    def orders(self, name):
        with postgres_server.server().connect() as connection:
            return connection.execute("SELECT count(*) FROM orders WHERE name = %s", (name,)).fetchall()[0][0]

    @contextmanager
    def driver(self) -> Iterator[Unit]:
        connection = psycopg.connect(self.dsn)
        try:
            yield Unit(
                connection,
                lambda name: connection.execute("INSERT INTO orders VALUES (%s)", (name,)),
                connection.commit,
                connection.rollback,
            )
        finally:
            connection.close()

    @asynccontextmanager
    async def aio_driver(self) -> AsyncIterator[Unit]:
        connection = await psycopg.AsyncConnection.connect(self.dsn)
        try:

            async def write(name):
                await connection.execute("INSERT INTO orders VALUES (%s)", (name,))

            yield Unit(connection, write, connection.commit, connection.rollback)
        finally:
            await connection.close()

    @asynccontextmanager
    async def asyncpg(self) -> AsyncIterator[Unit]:
        async with (
            asyncpg.create_pool(self.dsn, min_size=1, max_size=1) as pool,
            pool.acquire() as connection,
        ):
            begun = connection.transaction()
            await begun.start()

            async def write(name):
                await connection.execute("INSERT INTO orders VALUES ($1)", name)

            try:
                yield Unit(connection, write, begun.commit, begun.rollback)
            finally:
                if connection.is_in_transaction():
                    await begun.rollback()


class OnMysql:
    engine = "mysql"

    def __init__(self, folder: Path, clock: Clock | None = None) -> None:
        self.clock = clock
        self.arrive(
            asdict(mariadb.address_of(folder)), None if clock is None else mariadb.ManualMysqlStore(clock, folder)
        )
        self.store.open()
        mariadb.server().ask(ORDERS, self.address.database)

    def arrive(self, address, store=None):
        self.words = {"address": address}
        self.address = Address(**address)
        self.store: Store = store or MysqlStore(self.address)
        self.options: dict[str, Any] = {
            "host": "127.0.0.1", "port": self.address.port, "user": self.address.user,
            "password": self.address.password, "database": self.address.database,
        }  # fmt: skip
        self.url = self._url("mysql+pymysql")
        self.aio_url = self._url("mysql+asyncmy")
        self.django = {
            "ENGINE": "django.db.backends.mysql", "NAME": self.address.database, "USER": self.address.user,
            "PASSWORD": self.address.password, "HOST": "127.0.0.1", "PORT": self.address.port,
            "OPTIONS": {"ssl_disabled": True},
        }  # fmt: skip

    def _url(self, driver):
        address = self.address
        return sqlalchemy.URL.create(
            driver, address.user, address.password, address.host, address.port, address.database
        )

    def orders(self, name):
        return mariadb.server().ask(f"SELECT count(*) FROM orders WHERE name = '{name}'", self.address.database)[0][0]

    @contextmanager
    def driver(self) -> Iterator[Unit]:
        connection = pymysql.connect(**self.options, ssl_disabled=True)
        try:
            yield Unit(
                connection,
                lambda name: connection.cursor().execute("INSERT INTO orders VALUES (%s)", (name,)),
                connection.commit,
                connection.rollback,
            )
        finally:
            connection.close()

    @asynccontextmanager
    async def aio_driver(self) -> AsyncIterator[Unit]:
        connection = await asyncmy.connect(**self.options)
        try:

            async def write(name):
                async with connection.cursor() as cursor:
                    await cursor.execute("INSERT INTO orders VALUES (%s)", (name,))

            yield Unit(connection, write, connection.commit, connection.rollback)
        finally:
            await connection.ensure_closed()


PLACES: dict[str, type[Any]] = {place.engine: place for place in (OnSqlite, OnPostgres, OnMysql)}

# --- what stands above drivers --------------------------------------------------------------------

INSERT = sqlalchemy.text("INSERT INTO orders VALUES (:name)")


@contextmanager
def alchemy_connection(place) -> Iterator[Unit]:
    engine = sqlalchemy.create_engine(place.url, poolclass=NullPool)
    with engine.connect() as connection:
        yield Unit(
            connection, lambda name: connection.execute(INSERT, {"name": name}), connection.commit, connection.rollback
        )
    engine.dispose()


@contextmanager
def alchemy_session(place) -> Iterator[Unit]:
    engine = sqlalchemy.create_engine(place.url, poolclass=NullPool)
    with Session(engine) as session:
        yield Unit(session, lambda name: session.execute(INSERT, {"name": name}), session.commit, session.rollback)
    engine.dispose()


@asynccontextmanager
async def alchemy_aio_connection(place) -> AsyncIterator[Unit]:
    engine = create_async_engine(place.aio_url, poolclass=NullPool)
    async with engine.connect() as connection:

        async def write(name):
            await connection.execute(INSERT, {"name": name})

        yield Unit(connection, write, connection.commit, connection.rollback)
    await engine.dispose()


@asynccontextmanager
async def alchemy_aio_session(place) -> AsyncIterator[Unit]:
    engine = create_async_engine(place.aio_url, poolclass=NullPool)
    async with AsyncSession(engine) as session:

        async def write(name):
            await session.execute(INSERT, {"name": name})

        yield Unit(session, write, session.commit, session.rollback)
    await engine.dispose()


@contextmanager
def django_connection(place) -> Iterator[Unit]:
    alias = f"{place.engine}-{id(place)}"
    connections.settings[alias] = connections.configure_settings({"default": {}, alias: place.django})[alias]
    connection = connections[alias]
    atomic = transaction.Atomic(using=alias, savepoint=True, durable=False)

    def write(name):
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO orders VALUES (%s)", [name])

    def end(*, keeps):
        transaction.set_rollback(not keeps, using=alias)
        atomic.__exit__(None, None, None)

    atomic.__enter__()
    try:
        yield Unit(connection, write, lambda: end(keeps=True), lambda: end(keeps=False))
    finally:
        if connection.in_atomic_block:
            end(keeps=False)
        connection.close()
        del connections[alias]
        del connections.settings[alias]


def _drivers(place):
    return place.driver()


def _aio_drivers(place):
    return place.aio_driver()


KINDS: dict[str, tuple[str, bool, Callable[[Any], Any]]] = {}
"""The name of each kind; its engine, whether it blocks, and what opens it."""

for _engine in PLACES:
    KINDS |= {
        f"{_engine}-driver": (_engine, True, _drivers),
        f"{_engine}-aio-driver": (_engine, False, _aio_drivers),
        f"{_engine}-sqlalchemy-connection": (_engine, True, alchemy_connection),
        f"{_engine}-sqlalchemy-session": (_engine, True, alchemy_session),
        f"{_engine}-sqlalchemy-aio-connection": (_engine, False, alchemy_aio_connection),
        f"{_engine}-sqlalchemy-aio-session": (_engine, False, alchemy_aio_session),
        f"{_engine}-django": (_engine, True, django_connection),
    }
KINDS["postgresql-asyncpg"] = ("postgresql", False, lambda place: place.asyncpg())


def place_of(engine, words):
    """A place that another process has made."""
    kind: Any = PLACES[engine]
    place = kind.__new__(kind)
    place.arrive(**words)
    return place
