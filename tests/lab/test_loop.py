"""The loop that simulations run on is a loop to asyncio, and nothing in it is left to chance."""

from __future__ import annotations

import asyncio
import functools
import gc
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from retrysafe.lab.simulate.choices import Bounded
from retrysafe.lab.simulate.loop import Actor, SimulatedLoop, StuckError


def run(*works: Callable[[], Coroutine[Any, Any, Any]], delays: tuple[int, ...] = ()) -> SimulatedLoop:
    """Run each of these on an actor of its own."""
    loop = SimulatedLoop(Bounded(delays))
    for number, work in enumerate(works):
        loop.spawn(Actor(f"a{number}"), work())
    loop.run()
    return loop


def test_time_passes_when_there_is_nothing_else_to_do():
    """An hour takes no time."""
    seen = []

    async def sleep():
        await asyncio.sleep(3_600)
        seen.append(asyncio.get_running_loop().time())

    run(sleep)
    assert seen == [3_600]


def test_what_the_drivers_use_of_asyncio_works():
    """Tasks, futures, events, waits, timeouts, cancellation, shields and the names of the current task."""
    seen: list[object] = []

    async def everything():
        loop = asyncio.get_running_loop()
        event = asyncio.Event()
        loop.call_later(2, event.set)
        await event.wait()
        seen.append(loop.time())
        done, pending = await asyncio.wait({asyncio.create_task(asyncio.sleep(9)), loop.create_future()}, timeout=1)
        seen.append((len(done), len(pending)))
        for task in pending:
            task.cancel()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await loop.create_future()
        task = asyncio.create_task(asyncio.sleep(5), name="inner")
        loop.call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        seen.append(task.get_name())
        seen.append(await asyncio.shield(asyncio.sleep(1, "kept")))  # noqa: TID251 - what is tested is that it can be
        seen.append(await asyncio.gather(asyncio.sleep(1, "a"), asyncio.sleep(2, "b")))

    run(everything)
    assert seen == [2, (0, 2), "inner", "kept", ["a", "b"]]


def test_within_an_actor_the_order_is_asyncios():
    """First come, first served, as on any loop."""
    seen: list[int] = []

    async def many():
        for number in range(5):
            asyncio.get_running_loop().call_soon(seen.append, number)
        await asyncio.sleep(0)

    run(many)
    assert seen == [0, 1, 2, 3, 4]


def test_between_actors_the_order_is_chosen():
    """A delayed decision lets the others go first."""
    orders = set()
    for delays in ((), (0,), (1,), (0, 1)):
        seen: list[str] = []

        async def work(name, seen=seen):
            seen.append(name)
            await asyncio.sleep(0)
            seen.append(name)

        run(functools.partial(work, "a"), functools.partial(work, "b"), delays=delays)
        orders.add("".join(seen))
    assert len(orders) > 1
    assert {"".join(sorted(order)) for order in orders} == {"aabb"}


def test_a_paused_actor_stands_still_and_finds_out_how_late_it_is():
    """Its timers too; the others go on."""
    loop = SimulatedLoop(Bounded())
    seen: list[tuple[str, float]] = []

    async def tick(name):
        for _ in range(3):
            await asyncio.sleep(1)
            seen.append((name, loop.now_s))

    slow, quick = Actor("slow"), Actor("quick")
    loop.spawn(slow, tick("slow"))
    loop.spawn(quick, tick("quick"))
    loop.post(loop.world, 1.5, loop.pause, slow)
    loop.post(loop.world, 10.0, loop.resume, slow)
    loop.run()
    assert [at_s for name, at_s in seen if name == "quick"] == [1, 2, 3]
    assert [at_s for name, at_s in seen if name == "slow"] == [1, 10, 11]


def test_nothing_runs_of_what_was_killed():
    """No task of it goes on, no `finally` of it is entered, and nobody complains when it is swept up."""
    loop = SimulatedLoop(Bounded())
    seen: list[str] = []

    async def work():
        try:
            await asyncio.sleep(5)
            seen.append("on")
        finally:
            seen.append("finally")

    actor = Actor("dead")
    loop.spawn(actor, work())
    loop.post(loop.world, 1.0, loop.kill, actor)
    loop.post(loop.world, 2.0, loop.spawn, actor, work())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loop.run()
        assert (seen, loop.now_s) == ([], 2.0)
        loop.close()
        gc.collect()


def test_clocks_of_actors_go_as_they_like():
    """Ahead, or at another rate; a timer that fires finds that its time has come."""
    loop = SimulatedLoop(Bounded())
    seen: list[float] = []

    async def sleep():
        began_s = loop.time()
        for _ in range(100):
            due_s = loop.time() + 0.1
            await asyncio.sleep(0.1)
            assert loop.time() >= due_s
        seen.extend((began_s, loop.now_s))

    loop.spawn(Actor("fast", offset_s=1_000.0, rate=1.6), sleep())
    loop.run()
    assert seen[0] == 1_000.0
    assert seen[1] == pytest.approx(10 / 1.6)


def test_no_two_instants_are_the_same():
    """So that what happened can be put in order."""
    loop = SimulatedLoop(Bounded())
    stamps = [loop.stamp_ns() for _ in range(3)]
    assert stamps == sorted(set(stamps))


def test_a_run_without_end_is_ended():
    """After so many steps, or so much time."""

    async def spin():
        while True:  # noqa: ASYNC110 - it has no end
            await asyncio.sleep(0)

    async def dawdle():
        while True:  # noqa: ASYNC110 - it has no end
            await asyncio.sleep(1e6)

    for work in (spin, dawdle):
        loop = SimulatedLoop(Bounded(), steps_max=1_000)
        loop.spawn(Actor("a"), work())
        with pytest.raises(StuckError, match="no end"):
            loop.run()
        loop.close()


def test_what_failed_and_was_not_asked_for_is_found():
    """A task that raised, and a future that did."""

    async def fail():
        raise ZeroDivisionError

    loop = SimulatedLoop(Bounded())
    actor = Actor("a")
    loop.spawn(actor, fail())
    future = loop.create_future()
    loop.keep(actor, future)
    loop.run()
    future.set_exception(KeyError())
    assert [type(error) for error in loop.unretrieved(actor)] == [ZeroDivisionError, KeyError]
    loop.close()


def test_asyncio_still_is_what_the_loop_takes_it_for():
    """The names that are asyncio's own, and that the loop cannot do without."""
    loop = SimulatedLoop(Bounded())
    asyncio.events._set_running_loop(loop.as_loop())
    try:
        assert asyncio.get_running_loop() is loop.as_loop()
    finally:
        asyncio.events._set_running_loop(None)
    future = loop.create_future()
    future.set_exception(KeyError())
    assert future._log_traceback
    assert isinstance(future.exception(), KeyError)
    assert not future._log_traceback
    assert "_log_destroy_pending" in dir(asyncio.Task)
