"""Failpoints are passed in the order of what happens, change nothing, and are found again by name and number."""

from __future__ import annotations

import asyncio
import sys
import threading

import pytest

from retrysafe.drive import aio, step
from retrysafe.errors import StoreUnavailable
from retrysafe.lab.failpoints import Failpoints, point_every_line, pointed, pointed_driver, pointed_store
from retrysafe.protocol.transitions import ClaimIfAbsent, Read
from retrysafe.stores.contract import CompletesWithin
from retrysafe.stores.memory import MemoryStore
from retrysafe.stores.sqlite import SqliteStore
from tests.doors.connections import ask, protected

CLAIM = ClaimIfAbsent(bytes(32), bytes(16), b"f", 1_000, 1_000)


async def order(_, receive, send):
    await receive()
    await send({"type": "http.response.start", "status": 201, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


@pytest.fixture
def passed():
    return []


@pytest.fixture
def points(passed):
    return Failpoints(passed.append)


class Failing(MemoryStore):
    """A store that is away."""

    def submit(self, transition):
        failed = asyncio.get_running_loop().create_future()
        failed.set_exception(StoreUnavailable("away"))
        return failed


def test_a_point_is_a_name_and_a_number(points, passed):
    """The second time that a name is passed is another point; other names do not count."""
    for name in ("a", "b", "a"):
        points.reach(name)
    assert passed == ["a #1", "b #1", "a #2"]


def test_the_store_answers_between_its_points(points, passed):
    """In both colours: before it is sent nothing is stored, after it everything is, and the answer is the store's."""
    inner = MemoryStore()
    store = pointed_store(inner, points)
    there = []

    def look(point):
        passed.append(point)
        there.append(inner.perform(Read(bytes(32))) is not None)

    points._act = look

    async def submit():
        return await store.submit(CLAIM)

    assert store.open() == inner.open()
    found = asyncio.run(submit())
    assert found.record.token == CLAIM.token
    assert store.perform(Read(bytes(32))) is not None
    assert passed == [
        "before open #1", "after open #1", "before ClaimIfAbsent #1", "after ClaimIfAbsent #1",
        "before Read #1", "after Read #1",
    ]  # fmt: skip
    assert there == [False, False, False, True, True, True]


def test_a_store_can_what_it_can(points, tmp_path):
    """One that a handler may complete its record in still is one; another is not."""
    store = SqliteStore(tmp_path / "records.db")
    wrapped = pointed_store(store, points)
    assert isinstance(wrapped, CompletesWithin)
    assert wrapped.completion() == store.completion()
    assert not isinstance(pointed_store(MemoryStore(), points), CompletesWithin)


def test_a_failure_has_a_point_of_its_own(points, passed):
    """What the store could not do is told to the caller after the point that says so."""

    async def submit():
        with pytest.raises(StoreUnavailable):
            await pointed_store(Failing(), points).submit(CLAIM)

    asyncio.run(submit())
    assert passed == ["before ClaimIfAbsent #1", "failed ClaimIfAbsent #1"]


def test_a_request_passes_everything_once(points, passed):
    """Door, flow, store and handler, in this order; the record is there before the last message goes out."""
    door = protected(pointed(order, points, "handler"), pointed_store(MemoryStore(), points))
    with pointed_driver(points):
        answer = asyncio.run(ask(pointed(door, points, "door")))
    assert (answer.status, answer.body) == (201, b"done")
    names = [point.partition(" #")[0] for point in passed]
    order_of = [
        "before door", "before the flow is begun", "before ClaimIfAbsent", "after ClaimIfAbsent",
        "after the flow wants Execute", "before handler", "before handler sends http.response.body",
        "before CompleteIfHeld", "after CompleteIfHeld", "after the flow returns Deliver",
        "before door sends http.response.body", "after door",
    ]  # fmt: skip
    assert [name for name in names if name in order_of] == order_of


def test_the_driver_is_as_before(points, passed):
    """When the context is left, the driver has its own steps again."""
    names = ("first", "sent", "thrown")
    with pointed_driver(points):
        assert all(getattr(aio, name) is not getattr(step, name) for name in names)
    assert all(getattr(aio, name) is getattr(step, name) for name in names)


def test_every_line_is_a_point(points, passed):
    """The lines of the flow and of the store are among the points, on every thread; lines of others are not."""
    kept = sys.gettrace()
    point_every_line(points)
    try:
        thread = threading.Thread(target=lambda: MemoryStore().perform(CLAIM))
        thread.start()
        thread.join()
        asyncio.run(ask(protected(order)))
    finally:
        sys.settrace(kept)
        threading.settrace(kept)
    files = {point.partition(":")[0] for point in passed}
    assert {"protocol/flow.py", "drive/aio.py", "stores/memory.py", "server/handling.py"} <= files
    assert not [name for name in files if name.startswith(("lab/", ".."))]
