"""What `complete_within` refuses: each time it says what was seen and what to do, and nothing is recorded."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
import uuid
from collections.abc import Callable
from contextlib import AsyncExitStack, closing, nullcontext
from typing import Any

import aiosqlite
import asyncmy
import asyncpg  # type: ignore[import-untyped]  # it has no types
import psycopg
import pymysql
import pytest
import sqlalchemy
from django.db import connections, transaction
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool
from starlette.responses import StreamingResponse

from retrysafe import Policy
from retrysafe.errors import CallerError, ConfigurationError, StepMisused
from retrysafe.model import State
from retrysafe.operation import operation
from retrysafe.protocol.transitions import ListRecords
from retrysafe.stores.memory import MemoryStore
from retrysafe.stores.sqlite import SqliteStore
from tests.doors.connections import ask, protected
from tests.doors.handlers import piece, sending, start
from tests.drive.harness import in_loop
from tests.operation.kinds import KINDS, PLACES, OnMysql, OnPostgres, OnSqlite
from tests.stores import mariadb, postgres_server


async def said(store, connection, *, response=None):
    """The words with which a connection is refused in a handler; nothing if it is not."""
    words = []

    async def handler(scope, receive, send):
        try:
            done = operation().complete_within(connection, response)
            if inspect.iscoroutine(done):
                await done
        except CallerError as error:
            words.append(str(error))
        await send(start(400))
        await send(piece())

    door = protected(handler, store)
    await ask(door, key=uuid.uuid4().hex)
    await door.close()
    return words[0] if words else ""


# --- transactions that are none -------------------------------------------------------------------


async def sqlite3_autocommit(place, stack):
    return stack.enter_context(closing(sqlite3.connect(place.file, isolation_level=None)))


async def sqlite3_not_begun(place, stack):
    return stack.enter_context(closing(sqlite3.connect(place.file)))


async def aiosqlite_autocommit(place, stack):
    return await stack.enter_async_context(aiosqlite.connect(place.file, isolation_level=None))


async def psycopg_autocommit(place, stack):
    return stack.enter_context(closing(psycopg.connect(place.dsn, autocommit=True)))


async def psycopg_not_begun(place, stack):
    return stack.enter_context(closing(psycopg.connect(place.dsn)))


async def psycopg_failed(place, stack):
    connection = stack.enter_context(closing(psycopg.connect(place.dsn)))
    with pytest.raises(psycopg.errors.DivisionByZero):
        connection.execute("SELECT 1 / 0")
    return connection


async def psycopg_aio_autocommit(place, stack):
    connection = await psycopg.AsyncConnection.connect(place.dsn, autocommit=True)
    stack.push_async_callback(connection.close)
    return connection


async def asyncpg_autocommit(place, stack):
    connection = await asyncpg.connect(place.dsn)
    stack.push_async_callback(connection.close)
    return connection


async def pymysql_autocommit(place, stack):
    return stack.enter_context(closing(pymysql.connect(**place.options, autocommit=True, ssl_disabled=True)))


async def pymysql_not_begun(place, stack):
    return stack.enter_context(closing(pymysql.connect(**place.options, ssl_disabled=True)))


async def asyncmy_autocommit(place, stack):
    connection = await asyncmy.connect(**place.options, autocommit=True)
    stack.push_async_callback(connection.ensure_closed)
    return connection


async def alchemy_autocommit(place, stack):
    engine = sqlalchemy.create_engine(place.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    connection = stack.enter_context(engine.connect())
    connection.execute(sqlalchemy.text("SELECT 1"))
    assert connection.in_transaction()
    return connection


async def alchemy_session_not_begun(place, stack):
    return stack.enter_context(Session(sqlalchemy.create_engine(place.url, poolclass=NullPool)))


async def alchemy_aio_autocommit(place, stack):
    engine = create_async_engine(place.aio_url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    session = await stack.enter_async_context(AsyncSession(engine))
    await session.execute(sqlalchemy.text("SELECT 1"))
    return session


async def alchemy_aio_connection_not_begun(place, stack):
    return await stack.enter_async_context(create_async_engine(place.aio_url, poolclass=NullPool).connect())


ON_ONE: list[tuple[Any, Callable[..., Any]]] = [
    *((OnSqlite, make) for make in (sqlite3_autocommit, sqlite3_not_begun, aiosqlite_autocommit)),
    *((OnPostgres, make) for make in (psycopg_autocommit, psycopg_not_begun, psycopg_failed)),
    *((OnPostgres, make) for make in (psycopg_aio_autocommit, asyncpg_autocommit)),
    *((OnMysql, make) for make in (pymysql_autocommit, pymysql_not_begun, asyncmy_autocommit)),
]
ON_ALL: list[Callable[..., Any]] = [
    alchemy_autocommit, alchemy_session_not_begun, alchemy_aio_autocommit, alchemy_aio_connection_not_begun,
]  # fmt: skip
WITHOUT_TRANSACTION = [*ON_ONE, *((place, make) for place in PLACES.values() for make in ON_ALL)]


@pytest.mark.parametrize(
    ("place", "make"),
    WITHOUT_TRANSACTION,
    ids=[f"{place.engine}-{make.__name__}" for place, make in WITHOUT_TRANSACTION],
)
@in_loop
async def test_without_a_transaction(place, make, tmp_path):
    """Nothing could be committed together, so nothing is written, and the record is as it was."""
    place = place(tmp_path)
    async with AsyncExitStack() as stack:
        words = await said(place.store, await make(place, stack))
        seen = ("no open transaction", "in autocommit", "has failed")
        assert any(what in words for what in seen)
        assert "Begin a transaction" in words
        page = place.store.perform(ListRecords(tuple(State))) if place.engine == "sqlite" else None
        assert page is None or page.records[0].record.response is None
    place.store.close()


@pytest.mark.parametrize("engine", PLACES)
@in_loop
async def test_django_outside_of_atomic(engine, tmp_path):
    """In autocommit; and in a transaction that Django will only roll back."""
    place = PLACES[engine](tmp_path)
    alias = f"refused-{engine}"
    connections.settings[alias] = connections.configure_settings({"default": {}, alias: place.django})[alias]
    words = []

    def handle():
        for connection, atomic in ((connections[alias], False), (connections[alias], True)):
            with transaction.atomic(using=alias) if atomic else nullcontext():
                if atomic:
                    transaction.set_rollback(True, using=alias)
                with pytest.raises(CallerError) as refused:
                    operation().complete_within(connection, None)
            words.append(str(refused.value))
            connection.close()

    async def handler(scope, receive, send):
        await asyncio.to_thread(handle)
        await send(start(400))
        await send(piece())

    door = protected(handler, place.store)
    await ask(door)
    assert "in autocommit" in words[0]
    assert "its transaction has failed" in words[1]
    del connections.settings[alias]
    await door.close()
    place.store.close()


# --- other databases ------------------------------------------------------------------------------


@in_loop
async def test_another_file_of_sqlite(tmp_path):
    """One that has no records, one with the records of another store, and a copy that was made before the claim."""
    place = OnSqlite(tmp_path)
    other, copy = tmp_path / "other.db", tmp_path / "copy.db"
    SqliteStore(other).open()
    with closing(sqlite3.connect(place.file)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    for file, words in [
        (tmp_path / "bare.db", "without the records of sqlite"),
        (other, "to the records of another store"),
        (copy, "it leads to a copy of sqlite"),
    ]:
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            seen = await said(place.store, connection)
            assert words in seen
            assert str(place.file) in seen
    place.store.close()


@in_loop
async def test_another_database_of_postgresql(tmp_path):
    """One without the schema; the schema of another store; and a user who may not write there."""
    place = OnPostgres(tmp_path)
    with postgres_server.server().connect() as owner:
        owner.execute("DROP ROLE IF EXISTS reader")
        owner.execute("CREATE ROLE reader LOGIN")
    for url in (postgres_server.server().url("postgres"), place.dsn.replace("owner@", "reader@")):
        with closing(psycopg.connect(url)) as connection:
            connection.execute("SELECT 1")
            words = await said(place.store, connection)
            assert "without the records of postgresql 127.0.0.1" in words
            assert "SQLSTATE" in words
        engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"), poolclass=NullPool)
        async with engine.connect() as connection:
            await connection.execute(sqlalchemy.text("SELECT 1"))
            assert "SQLSTATE" in await said(place.store, connection)
    place.store.close()


@in_loop
async def test_a_snapshot_that_is_older_than_the_claim(tmp_path):
    """REPEATABLE READ shows what was there when the transaction began, and so no claim: that is what it says."""
    place = OnPostgres(tmp_path)
    with closing(psycopg.connect(place.dsn)) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT 1")
        words = await said(place.store, connection)
    assert "REPEATABLE READ" in words
    assert "begin it in the handler" in words
    place.store.close()


@in_loop
async def test_another_user_of_mysql(tmp_path):
    """Whose rights do not reach the records."""
    place = OnMysql(tmp_path)
    mariadb.server().ask("CREATE USER IF NOT EXISTS 'stranger'@'127.0.0.1' IDENTIFIED BY 'x'")
    options = place.options | {"user": "stranger", "password": "x", "database": None}
    with closing(pymysql.connect(**options, ssl_disabled=True)) as connection:
        connection.begin()
        assert "without the records of mysql" in await said(place.store, connection)
    place.store.close()


@in_loop
async def test_another_database_of_the_same_mysql_server_is_as_good(tmp_path):
    """A transaction spans the databases of a server, whichever the connection is in."""
    place = OnMysql(tmp_path)
    with closing(pymysql.connect(**place.options | {"database": None}, ssl_disabled=True)) as connection:
        connection.begin()
        assert await said(place.store, connection) == ""
        connection.commit()
    place.store.close()


@in_loop
async def test_another_engine(tmp_path):
    """The connection is to one database, and the records are in another."""
    place = OnSqlite(tmp_path)
    with closing(psycopg.connect(postgres_server.server().url())) as connection:
        connection.execute("SELECT 1")
        words = await said(place.store, connection)
    assert "a connection to postgresql, and the records are in sqlite" in words
    place.store.close()


# --- other things ---------------------------------------------------------------------------------


@in_loop
async def test_what_is_no_connection(tmp_path):
    """It names what works."""
    place = OnSqlite(tmp_path)
    words = await said(place.store, object())
    assert "was given a builtins.object" in words
    for library in ("psycopg", "asyncpg", "sqlite3", "aiosqlite", "PyMySQL", "asyncmy", "SQLAlchemy", "Django"):
        assert library in words
    place.store.close()


@in_loop
async def test_a_store_that_has_no_transactions(tmp_path):
    """It is refused when the door is made, if a policy asks for it; else when a handler does."""
    with closing(sqlite3.connect(tmp_path / "shop.db")) as connection:
        assert "they are in memory" in await said(MemoryStore(), connection)
    with pytest.raises(ConfigurationError, match=r"transactional=True is set for \*.*memory"):
        protected(sending(), MemoryStore(), policy=Policy(transactional=True))
    with pytest.raises(ConfigurationError, match="POST /charges"):
        protected(sending(), MemoryStore(), routes={"POST /charges": Policy(transactional=True)})


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (StreamingResponse(iter([b"a"])), "is not known before it is sent"),
        (object(), "which JSON cannot say"),
        ({"rate": float("nan")}, "which JSON cannot say"),
    ],
)
@in_loop
async def test_an_answer_that_cannot_be_recorded(response, words, tmp_path):
    """It is refused before anything is written."""
    place = OnSqlite(tmp_path)
    with closing(sqlite3.connect(place.file)) as connection:
        connection.execute("BEGIN")
        assert words in await said(place.store, connection, response=response)
        assert connection.total_changes == 0
    place.store.close()


@in_loop
async def test_a_step_afterwards(tmp_path):
    """It would wait for the row that is locked: it is refused at once, and nothing is called."""
    place, calls = OnSqlite(tmp_path), []

    async def mail(call):
        calls.append(call)

    async def handler(scope, receive, send):
        with closing(sqlite3.connect(place.file)) as connection:
            connection.execute("INSERT INTO orders VALUES ('stepped')")
            operation().complete_within(connection, "sold")
            with pytest.raises(StepMisused, match="comes after complete_within"):
                await operation().step("mail", mail)
            connection.commit()
        await send(start(200))
        await send(piece())

    door = protected(handler, place.store)
    assert ((await ask(door)).body, calls) == (b'"sold"', [])
    await door.close()
    place.store.close()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.endswith("-driver")])
@in_loop
async def test_a_second_call(kind, tmp_path):
    """Refused in the same transaction; in a new one it is what counts, if the first was rolled back."""
    engine, blocking, opened = KINDS[kind]
    place = PLACES[engine](tmp_path)
    first, second = uuid.uuid4().hex, uuid.uuid4().hex

    async def complete(unit, answer):
        done = operation().complete_within(unit.connection, answer, status=201)
        assert await done == answer
        return done

    async def handler(scope, receive, send):
        async with AsyncExitStack() as stack:
            unit = stack.enter_context(opened(place)) if blocking else await stack.enter_async_context(opened(place))
            for answer, end in ((first, unit.roll_back), (second, unit.commit)):
                written = unit.write(answer)
                if not blocking:
                    await written
                await complete(unit, answer)
                with pytest.raises(CallerError, match="called twice"):
                    await complete(unit, "again")
                ended = end()
                if not blocking:
                    await ended
        await send(start(200))
        await send(piece())

    door = protected(handler, place.store)
    for replayed in (False, True):
        answer = await ask(door)
        assert (answer.status, answer.body, answer.replayed) == (201, f'"{second}"'.encode(), replayed)
    assert (place.orders(first), place.orders(second)) == (0, 1)
    await door.close()
    place.store.close()
