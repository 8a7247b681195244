"""A request is cancelled at each single await, of whichever of its tasks, over stores that have connections.

Awaits are counted by running: a task factory sees each suspension of each task. In the n-th run the request is
cancelled at the n-th of them, from the first to the one after the last, so that none is left out or listed by hand.
Afterwards nothing is left over: no task, no transaction, no lock; one effect, and a record that a retry replays.
"""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import uuid
from collections.abc import Callable, Coroutine, Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from retrysafe.stores.contract import Store
from retrysafe.stores.postgres import PostgresStore
from retrysafe.stores.sqlite import SqliteStore
from tests.doors.connections import ask, protected
from tests.drive.cancelling import Effects, SlowConnection, alone, behind_base_http, slow_handler, streaming_handler
from tests.drive.harness import PATIENCE_S, eventually, others
from tests.stores.postgres_server import schema_of, server

AWAITS_MAX = 600
CONNECTIONS_MAX = 3  # of one store: a lane to claim, one to settle, one to open


class Awaits:
    """Counts the suspensions of every task that is made while it is in the loop.

    Args:
        moment: at which of them to strike; the first is 1.
    """

    def __init__(self, moment: int) -> None:
        self.moment = moment
        self.seen = 0
        self.strike: Callable[[], object] = lambda: None

    def factory(self, loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        """For `set_task_factory`."""
        return asyncio.Task(self._counted(work), loop=loop, **options)

    async def _counted(self, work: Coroutine[Any, Any, Any]) -> Any:
        return await _Steps(work, self._suspended)

    def _suspended(self) -> None:
        self.seen += 1
        if self.seen == self.moment:
            self.strike()


class _Steps:
    """A coroutine, driven step by step."""

    def __init__(self, work: Coroutine[Any, Any, Any], suspended: Callable[[], None]) -> None:
        self._work = work
        self._suspended = suspended

    def __await__(self) -> Generator[Any, Any, Any]:
        resume, argument = self._work.send, None
        while True:
            try:
                awaited = resume(argument)
            except StopIteration as end:
                return end.value
            self._suspended()
            try:
                argument = yield awaited
                resume = self._work.send
            except BaseException as error:  # noqa: BLE001 - a cancellation above all: it is for the coroutine
                argument, resume = error, self._work.throw


class Sqlite:
    """A file, and what may be left over in it."""

    def __init__(self, place: Path) -> None:
        self._path = place / "records.db"

    def store(self) -> Store:
        return SqliteStore(self._path)

    def close(self) -> None:
        """Nothing stays open."""

    def left_over(self) -> bool:
        """Somebody holds the right to write, or an old state that a checkpoint has to spare."""
        with closing(sqlite3.connect(self._path, timeout=0, isolation_level=None)) as connection:
            ((busy, _, _),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return bool(busy)


class Postgres:
    """A database, and what may be left over in it."""

    def __init__(self, place: Path) -> None:
        name = schema_of(place)
        with server().connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        self._url = server().url(name)
        self._watch = psycopg.connect(self._url, autocommit=True)

    def store(self) -> Store:
        return PostgresStore(self._url)

    def close(self) -> None:
        """Stop watching."""
        self._watch.close()

    def left_over(self) -> bool:
        """A connection is within a transaction, or there are more of them than one store has."""
        states = self._watch.execute(
            "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        ).fetchall()
        return any(state != "idle" for (state,) in states) or len(states) > CONNECTIONS_MAX


async def _until_idle(place: Any) -> None:
    """A server may need a moment to hear that a connection has nothing more to do; the end of its patience fails."""
    while await asyncio.to_thread(place.left_over):  # noqa: ASYNC110 - the state is in another process
        await asyncio.sleep(0.001)


async def _once(moment: int, place: Any, handler: Any, outer: Any) -> tuple[bool, int]:
    """One run; whether there was a moment of that number, and whether the handler ran before the retry."""
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    store, effects, awaits, key = place.store(), Effects(), Awaits(moment), uuid.uuid4().hex
    door = protected(handler(effects), store)
    async with asyncio.timeout(PATIENCE_S):
        await door.open()
        loop.set_task_factory(awaits.factory)
        request = asyncio.create_task(SlowConnection(key=key, body=[b"{", b"}"]).run(outer(door)))
        awaits.strike = request.cancel
        await asyncio.wait([request])
        await eventually(lambda: not others())
        loop.set_task_factory(None)
        began = effects.begun
        await _until_idle(place)
        retry = await ask(door, key=key, body=[b"{}"])
        assert (retry.status, retry.body, retry.replayed) == (201, b"order is taken", began == 1)
        assert (effects.begun, effects.done) == (1, 1)
        await eventually(lambda: not others())
    await asyncio.to_thread(store.close)
    assert not complaints
    return awaits.seen >= moment, began


@pytest.mark.parametrize("outer", [alone, behind_base_http])
@pytest.mark.parametrize(("kind", "handler"), [
    (Sqlite, slow_handler), (Sqlite, streaming_handler), (Postgres, streaming_handler),
])  # fmt: skip
def test_a_request_is_cancelled_at_each_await(tmp_path, kind, handler, outer):
    """Nothing ran and nothing is stored, or one effect and its record; and nothing is left over."""
    ran = []
    place = kind(tmp_path)
    for moment in range(1, AWAITS_MAX):
        there, began = asyncio.run(_once(moment, place, handler, outer))
        ran.append(began)
        if not there:
            break
    else:
        raise AssertionError(f"the request has more than {AWAITS_MAX} awaits")
    place.close()
    gc.collect()
    assert len(ran) > 15
    assert set(ran) == {0, 1}  # first before the handler, then in it and after it
