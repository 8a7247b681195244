"""While the handler's transaction is open: who waits for it, who does not, and what it costs."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import struct
import uuid
from contextlib import closing

import psycopg
import pytest

from retrysafe import Policy
from retrysafe.errors import IncompleteResponse
from retrysafe.operation import operation
from retrysafe.protocol.transitions import RenewIfHeld
from tests.doors.connections import Connection, ask, protected
from tests.doors.handlers import piece, start
from tests.drive.harness import eventually, in_loop
from tests.operation.kinds import KINDS, PLACES
from tests.operation.selling import Shop
from tests.stores import postgres_server

SERVERS = ["postgresql-aio-driver", "postgresql-asyncpg", "mysql-aio-driver"]
TRANSACTIONAL = Policy(transactional=True)


class Slow:
    """A handler that completes its record and then keeps its transaction open until it may go on.

    Attributes:
        answers_first: it answers before it commits.
    """

    def __init__(self, place, kind, *, answers_first=False):
        self.place = place
        self.open = KINDS[kind][2]
        self.locked, self.may_go_on = asyncio.Event(), asyncio.Event()
        self.answers_first = answers_first

    async def __call__(self, scope, receive, send):
        name = json.loads((await receive())["body"])["name"]
        async with self.open(self.place) as unit:
            await unit.write(name)
            await operation().complete_within(unit.connection, {"sold": name}, status=201)
            self.locked.set()
            if self.answers_first:
                await send(start(201))
                await send(piece())
            await self.may_go_on.wait()
            await unit.commit()
        if not self.answers_first:
            await send(start(201))
            await send(piece())


def order(door, name):
    return ask(door, key=name, body=json.dumps({"name": name}).encode())


@pytest.mark.parametrize("kind", [*SERVERS, "sqlite-aio-driver"])
@in_loop
async def test_duplicates_are_told_to_wait_and_other_keys_are_not_held_up(kind, tmp_path):
    """The row is locked; a claim of it reads past the lock, and claims and settlements of others do not meet it."""
    place, name = PLACES[KINDS[kind][0]](tmp_path), uuid.uuid4().hex
    slow = Slow(place, kind)
    door = protected(slow, place.store, policy=TRANSACTIONAL)
    first = asyncio.create_task(order(door, name))
    await slow.locked.wait()
    duplicates = await asyncio.gather(*(order(door, name) for _ in range(10)))
    assert {answer.code for answer in duplicates} == {"in-progress"}
    if kind in SERVERS:  # SQLite has one writer, and it is the handler
        others = protected(Shop(place, kind), place.store, policy=TRANSACTIONAL)
        answers = await asyncio.gather(*(order(others, uuid.uuid4().hex) for _ in range(10)))
        assert {answer.status for answer in answers} == {201}
    assert not first.done()
    slow.may_go_on.set()
    assert (await first).status == 201
    assert (await order(door, name)).replayed
    assert place.orders(name) == 1
    await door.close()
    place.store.close()


@pytest.mark.parametrize("kind", [*SERVERS, "sqlite-aio-driver"])
@in_loop
async def test_an_answer_before_the_commit(kind, tmp_path):
    """Nobody knows yet: a 500 that says so, within a bound. After the commit the record has the answer."""
    place, name = PLACES[KINDS[kind][0]](tmp_path), uuid.uuid4().hex
    slow = Slow(place, kind, answers_first=True)
    door = protected(slow, place.store, policy=TRANSACTIONAL)
    first = asyncio.create_task(order(door, name))
    await slow.locked.wait()
    await eventually(lambda: not door._driver._owners or next(iter(door._driver._owners)).concluded)
    slow.may_go_on.set()
    assert (await first).code == "commit-pending"
    answer = await order(door, name)
    assert (answer.status, answer.replayed, place.orders(name)) == (201, True, 1)
    await door.close()
    place.store.close()


@pytest.mark.parametrize("kind", SERVERS)
@in_loop
async def test_renewal_ends_with_the_completion(kind, tmp_path):
    """A renewal would wait for the row, and with it the settlements of every other key."""
    place, name = PLACES[KINDS[kind][0]](tmp_path), uuid.uuid4().hex
    slow = Slow(place, kind)
    door = protected(slow, place.store, policy=Policy(transactional=True, lease="90ms"))
    renewals, submit = [], place.store.submit

    def counting(transition):
        renewals.append(isinstance(transition, RenewIfHeld) and slow.locked.is_set())
        return submit(transition)

    place.store.submit = counting
    first = asyncio.create_task(order(door, name))
    await slow.locked.wait()
    assert door._driver.renewals._running == {}
    async with asyncio.timeout(60):
        while (await order(door, name)).code == "in-progress":  # until the lease has lapsed
            pass
    slow.may_go_on.set()
    assert (await first).status == 201
    assert not any(renewals)
    assert (await order(door, name)).replayed
    assert place.orders(name) == 1
    await door.close()
    place.store.close()


# --- commits --------------------------------------------------------------------------------------


@in_loop
async def test_no_commit_besides_the_claim_and_the_handlers_own_on_postgresql(tmp_path):
    """Two transactions that wrote; a handler that does not complete its record itself needs three."""
    place = PLACES["postgresql"](tmp_path)

    async def plain(scope, receive, send):
        with closing(psycopg.connect(place.dsn)) as connection:
            connection.execute("INSERT INTO orders VALUES ('plain')")
            connection.commit()
        await send(start(201))
        await send(piece())

    counts = []
    with postgres_server.server().connect() as observer:
        for application in (Shop(place, "postgresql-asyncpg"), plain):
            door = protected(application, place.store, policy=TRANSACTIONAL)
            before = _writes(observer)
            assert (await order(door, uuid.uuid4().hex)).status == 201
            counts.append(_writes(observer) - before)
    assert counts == [2, 3]
    place.store.close()


def _writes(connection):
    """How many transactions have written so far: each of these has a number."""
    return int(connection.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text").fetchone()[0])


@in_loop
async def test_no_commit_besides_the_claim_and_the_handlers_own_on_sqlite(tmp_path):
    """Two commits in the write-ahead log."""
    place = PLACES["sqlite"](tmp_path)
    door = protected(Shop(place, "sqlite-driver"), place.store, policy=TRANSACTIONAL)
    await order(door, uuid.uuid4().hex)
    before = _commits(place.file)
    assert (await order(door, uuid.uuid4().hex)).status == 201
    assert _commits(place.file) - before == 2
    place.store.close()


def _commits(file):
    """How many frames of the write-ahead log end a transaction."""
    log = file.with_name(f"{file.name}-wal").read_bytes()
    page_bytes, salts = struct.unpack(">I", log[8:12])[0], log[16:24]
    frames = (log[at : at + 24] for at in range(32, len(log), page_bytes + 24))
    return sum(frame[4:8] != bytes(4) and frame[8:16] == salts for frame in frames)


@in_loop
async def test_the_log_of_sqlite_is_left_to_the_store(tmp_path):
    """Before SQLite 3.51.3 no connection but the store's may bring the log back."""
    place = PLACES["sqlite"](tmp_path)
    seen = []

    async def handler(scope, receive, send):
        with closing(sqlite3.connect(place.file)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            operation().complete_within(connection, None)
            seen.extend(connection.execute("PRAGMA wal_autocheckpoint").fetchone())
            connection.commit()
        await send(start(200))
        await send(piece())

    await ask(protected(handler, place.store))
    assert (seen == [0]) == (sqlite3.sqlite_version_info < (3, 51, 3))
    place.store.close()


# --- what belongs together and is torn apart ------------------------------------------------------


@in_loop
async def test_a_savepoint_that_is_rolled_back_takes_the_record_with_it(tmp_path):
    """What was done outside of it is committed without a record: the client is told so, and a retry does it again."""
    place, name = PLACES["sqlite"](tmp_path), uuid.uuid4().hex

    async def handler(scope, receive, send):
        with closing(sqlite3.connect(place.file, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO orders VALUES (?)", (name,))
            connection.execute("SAVEPOINT part")
            operation().complete_within(connection, {"sold": name})
            connection.execute("ROLLBACK TO part")
            connection.execute("COMMIT")
        await send(start(200))
        await send(piece())

    door = protected(handler, place.store)
    for times in (1, 2):
        assert (await order(door, name)).code == "rolled-back"
        assert place.orders(name) == times
    await door.close()
    place.store.close()


@in_loop
async def test_a_response_that_was_begun_before_it_was_recorded(tmp_path):
    """What went out cannot be taken back, so it is broken off; a retry gets what was recorded, whole."""
    place, name = PLACES["sqlite"](tmp_path), uuid.uuid4().hex

    async def handler(scope, receive, send):
        await send(start(200))
        await send(piece(b"first", more=True))
        with closing(sqlite3.connect(place.file)) as connection:
            connection.execute("INSERT INTO orders VALUES (?)", (name,))
            operation().complete_within(connection, {"sold": name}, status=201)
            connection.commit()
        await send(piece(b"second", more=True))
        await send(piece(b"third"))

    door = protected(handler, place.store)
    first = Connection(key=name, body=b"{}")
    answer = await first.run(door)
    assert (answer.status, answer.body, answer.whole) == (200, b"first", False)
    assert isinstance(first.error, IncompleteResponse)
    retry = await ask(door, key=name, body=b"{}")
    assert (retry.status, retry.replayed, place.orders(name)) == (201, True, 1)
    await door.close()
    place.store.close()
