"""A request is cancelled at each of its awaits in turn: at most one effect, and a record that tells the truth.

A moment is a number of turns of the event loop. A sweep begins at the first one and ends where the request was over
before it could be cancelled, so that none is left out. The stores differ in how many turns they take,
and so in what is under way when the cancellation comes.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import anyio
import pytest

from retrysafe import Policy
from retrysafe.model import State
from retrysafe.server.handling import Application
from retrysafe.stores.contract import Store
from retrysafe.stores.memory import MemoryStore
from retrysafe.stores.sqlite import SqliteStore
from tests.doors.connections import ask, protected
from tests.doors.handlers import Shop, content_of, piece, start
from tests.drive.cancelling import Effects, SlowConnection, alone, behind_base_http, slow_handler, streaming_handler
from tests.drive.harness import (
    PATIENCE_S,
    STORE,
    ManualClock,
    TamperedStore,
    eventually,
    in_loop,
    others,
    states,
    turn,
    turns,
)

TURNS_MAX = 400


def _quick(clock: ManualClock) -> Store:
    return MemoryStore(clock)


def _slow(clock: ManualClock) -> Store:
    return TamperedStore(MemoryStore(clock), before=turns(3), after=turns(3))


def _within_a_scope(app: Application) -> Application:
    """Cancelled as anyio does it: again at each turn, until the scope is left."""

    async def scoped(connection: Any, receive: Any, send: Any) -> None:
        with anyio.CancelScope() as scope:
            connection["cancel"].append(scope.cancel)
            await app(connection, receive, send)

    return scoped


async def _cancelled_at(moment: int, app: Application, **request: Any) -> bool:
    """Serve a request and cancel it after so many turns of the loop; whether it was still running."""
    cancels: list[Callable[[], object]] = []
    connection = SlowConnection(body=[b"{", b"}"], cancel=cancels, **request)
    serving = asyncio.create_task(connection.run(app))
    cancels.append(serving.cancel)
    await turn(moment)
    if serving.done():
        await serving
        return False
    cancels[-1]()
    await asyncio.wait([serving])
    return True


async def _audit(effects: Effects, door: Application, store: Store) -> int:
    """Whatever was cancelled: the next request gets the one outcome, and there is one effect. Had it run before?"""
    await eventually(lambda: not others())
    began = effects.begun
    assert states(store) == ([State.COMPLETED] if began else [])
    answer = await ask(door, body=[b"{}"])
    assert (answer.status, answer.body, answer.replayed) == (201, b"order is taken", began == 1)
    assert (effects.begun, effects.done) == (1, 1)
    return began


def _sweep(once: Callable[[int], Coroutine[Any, Any, bool]]) -> Iterator[int]:
    """Every moment at which there was still something to cancel."""
    for moment in range(TURNS_MAX):
        if not asyncio.run(_strictly(once(moment))):
            return
        yield moment
    raise AssertionError(f"the request takes more than {TURNS_MAX} turns")


async def _strictly(run: Coroutine[Any, Any, bool]) -> bool:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with asyncio.timeout(PATIENCE_S):
        running = await run
    assert not complaints
    return running


@pytest.mark.parametrize("outer", [alone, behind_base_http, _within_a_scope])
@pytest.mark.parametrize("make_store", [_quick, _slow])
@pytest.mark.parametrize("handler", [slow_handler, streaming_handler])
def test_a_client_may_leave_at_any_moment(handler, make_store, outer):
    """Cancel the request's task at every await: nothing ran and nothing is stored, or one effect and its record."""
    ran = []

    async def once(moment: int) -> bool:
        effects, store = Effects(), make_store(ManualClock())
        door = protected(handler(effects), store)
        await door.open()
        running = await _cancelled_at(moment, outer(door))
        ran.append(await _audit(effects, door, store))
        return running

    swept = list(_sweep(once))
    gc.collect()
    assert len(swept) > 15
    assert ran == sorted(ran)
    assert set(ran) == {0, 1}  # first before the handler, then in it and after it


@pytest.mark.parametrize("outer", [alone, behind_base_http, _within_a_scope])
@pytest.mark.parametrize("make_store", [_quick, _slow])
def test_a_duplicate_may_leave_at_any_moment_of_its_wait(make_store, outer):
    """Cancel a duplicate that waits, at every await up to where it only waits: the first attempt is not disturbed."""
    moments = 60

    async def once(moment: int) -> bool:
        store, shop = make_store(ManualClock()), Shop()
        shop.gate.clear()
        door = protected(shop, store, policy=Policy(in_flight="wait", wait="5s"))
        await door.open()
        first = asyncio.create_task(ask(door, body=[b"{", b"}"]))
        await shop.entered.wait()
        assert await _cancelled_at(moment, outer(door))
        await eventually(lambda: not door._driver.waiting._places)
        shop.gate.set()
        assert (await first).body == b"order 1"
        assert (await ask(door, body=[b"{}"])).replayed
        assert (shop.effects, states(store)) == (1, [State.COMPLETED])
        return moment < moments

    assert len(list(_sweep(once))) == moments
    gc.collect()


@pytest.mark.parametrize("make_store", [_quick, _slow])
def test_a_second_attempt_may_be_cancelled_at_any_moment(make_store):
    """The record has a history: an attempt that is cancelled leaves it retryable, and never deletes it."""

    async def once(moment: int) -> bool:
        effects, store = Effects(), make_store(ManualClock())
        answers = [429, 201]

        async def handler(_connection, receive, send):
            await content_of(receive)
            effects.begun += 1
            await asyncio.sleep(0)
            await send(start(answers[min(effects.begun, 2) - 1]))
            await send(piece(b"done"))

        door = protected(handler, store)
        assert (await ask(door, body=[b"{}"])).status == 429
        running = await _cancelled_at(moment, door)
        await eventually(lambda: not others())
        assert states(store) == [State.COMPLETED if effects.begun == 2 else State.RETRYABLE]
        assert (await ask(door, body=[b"{}"])).status == 201
        assert effects.begun == 2
        return running

    assert len(list(_sweep(once))) > 5


@pytest.mark.parametrize("make_store", [_quick, _slow])
@pytest.mark.parametrize("after", ["returns", "raises", "says so"])
def test_a_handler_may_lose_patience_at_any_moment(make_store, after):
    """It stands in a cancel scope of its own, which ends anywhere: what its client got is what a retry gets."""
    whole = []

    async def once(moment: int) -> bool:
        effects, store = Effects(), make_store(ManualClock())
        handler = slow_handler(effects)
        cancels: list[Callable[[], object]] = []

        async def impatient(connection, receive, send):
            with anyio.CancelScope() as scope:
                cancels.append(scope.cancel)
                await handler(connection, receive, send)
            if scope.cancelled_caught and after == "raises":
                raise TimeoutError
            if scope.cancelled_caught and after == "says so":
                await send(start(500))
                await send(piece(b"too slow"))

        door = protected(impatient, store)
        connection = SlowConnection(body=[b"{", b"}"])
        request = asyncio.create_task(connection.run(door))
        while not cancels:
            await turn(1)
        await turn(moment)
        running = not request.done()
        cancels[0]()
        await asyncio.wait([request])
        first, retry = connection.answer, await ask(door, body=[b"{}"])
        assert (effects.begun, len(states(store))) == (1, 1)
        whole.append(first.whole)
        if first.whole:
            assert (retry.status, retry.body, retry.replayed) == (first.status, first.body, True)
        elif not retry.replayed:
            assert (retry.code, states(store)) == ("outcome-unknown", [State.UNKNOWN])
        return running

    assert len(list(_sweep(once))) > 10
    assert set(whole) == {True, False}


@pytest.mark.parametrize("make_store", [_quick, _slow])
def test_the_loop_may_end_at_any_moment(make_store):
    """Every task is cancelled, as a loop does at its end: never a second effect, never a false record."""
    clock = ManualClock()

    async def once(moment: int) -> bool:
        effects, store = Effects(), make_store(clock)
        door = protected(slow_handler(effects), store, policy=Policy(lease="1s"))
        await door.open()
        request = asyncio.create_task(SlowConnection(body=[b"{", b"}"]).run(door))
        await turn(moment)
        running = not request.done()
        for task in others():
            if task.get_name() != STORE:
                task.cancel()
        await asyncio.wait([request])
        await eventually(lambda: not others())
        clock.now_ms += 1_001
        retry = await ask(door, body=[b"{}"])
        assert effects.done <= 1
        if retry.status == 409:
            assert (retry.code, states(store)) == ("outcome-unknown", [State.UNKNOWN])
        else:
            assert (retry.status, retry.body) == (201, b"order is taken")
            assert effects.begun == 1
        return running

    assert len(list(_sweep(once))) > 15


@pytest.mark.parametrize("make_store", [_quick, _slow])
def test_the_patience_of_a_door_may_end_at_any_moment(make_store):
    """What is at work is cut off, be it about to begin: who waits hears something, and there is no second effect."""
    clock = ManualClock()

    async def once(moment: int) -> bool:
        effects, store = Effects(), make_store(clock)
        door = protected(slow_handler(effects), store, policy=Policy(lease="1s"))
        await door.open()
        request = asyncio.create_task(SlowConnection(body=[b"{", b"}"]).run(door))
        await turn(moment)
        running = not request.done()
        await door._driver.drain(0)
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait([request])
        assert not door._driver._owners
        clock.now_ms += 1_001
        await ask(door, body=[b"{}"])
        assert effects.done <= 1
        return running

    assert len(list(_sweep(once))) > 15


@in_loop
async def test_a_client_of_a_real_store_may_leave_at_any_moment(tmp_path):
    """The same with the writer thread of SQLite, which answers whoever still waits and no one else."""
    store = SqliteStore(tmp_path / "records.db")
    effects = Effects()
    door = protected(slow_handler(effects), store)
    await door.open()
    moment, running = 0, True
    while running:
        effects.begun = effects.done = 0
        running = await _cancelled_at(moment, door, key=f"k-{moment}")
        await eventually(lambda: not others())
        began = effects.begun
        answer = await ask(door, key=f"k-{moment}", body=[b"{}"])
        assert (answer.body, answer.replayed, effects.begun) == (b"order is taken", began == 1, 1)
        moment += 1 + moment // 8
    await asyncio.to_thread(store.close)
    assert moment > 15
