"""Runs the attempts of one operation, in both colours. A transport says how one of them is sent."""

from __future__ import annotations

import asyncio
import contextvars
import random
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from retrysafe.client.attempt import Afford, Ended, Now, Reply, Send, Sleep
from retrysafe.client.budget import RetryBudget
from retrysafe.protocol.effects import Effect, Flow

_RANDOM = random.SystemRandom()


def wall_clock_s() -> float:
    """The time that keys live on: it goes on while no process runs."""
    return time.time()  # noqa: TID251 - a key's age must be known after a restart; it decides only when to stop trying


def run(attempts: Flow[Ended], send: Callable[[], Reply], budget: RetryBudget) -> Ended:
    """To its end, on this thread.

    Args:
        attempts: the flow.
        send: one attempt; it raises nothing that is a failure of the network.
        budget: that retries are taken from.
    """
    budget.earn()
    answer: Any = None
    try:
        while True:
            step = attempts.send(answer)
            if isinstance(step, Send):
                answer = send()
            elif isinstance(step, Sleep):
                threading.Event().wait(_drawn_s(step))
                answer = None
            else:
                answer = _known(step, budget)
    except StopIteration as end:
        ended: Ended = end.value
        return ended


async def run_async(attempts: Flow[Ended], send: Callable[[], Awaitable[Reply]], budget: RetryBudget) -> Ended:
    """To its end, on this event loop; arguments as for `run`."""
    budget.earn()
    answer: Any = None
    try:
        while True:
            step = attempts.send(answer)
            if isinstance(step, Send):
                answer = await send()
            elif isinstance(step, Sleep):
                await asyncio.sleep(_drawn_s(step))
                answer = None
            else:
                answer = _known(step, budget)
    except StopIteration as end:
        ended: Ended = end.value
        return ended


T = TypeVar("T")


async def in_thread(work: Callable[[], T], undo: Callable[[T], object]) -> T:
    """Blocking work on a thread. If the caller is cancelled meanwhile, it is undone once it is done."""
    loop = asyncio.get_running_loop()
    context = contextvars.copy_context()
    task = loop.run_in_executor(None, context.run, work)
    try:
        await asyncio.wait({task})  # whose cancellation does not cancel what it waits for
    except asyncio.CancelledError:
        task.add_done_callback(lambda done: done.exception() or loop.run_in_executor(None, undo, done.result()))
        raise
    return task.result()


async def finished(work: Callable[[], object]) -> None:
    """Blocking work on a thread that is done even if the caller is cancelled meanwhile."""
    context = contextvars.copy_context()
    task = asyncio.get_running_loop().run_in_executor(None, context.run, work)
    await asyncio.wait({task})
    task.result()


def _drawn_s(sleep: Sleep) -> float:
    return _RANDOM.uniform(sleep.least_s, sleep.most_s)


def _known(step: Effect[Any], budget: RetryBudget) -> float | bool:
    match step:
        case Now():
            return wall_clock_s()
        case Afford():
            return budget.spend()
        case _:
            raise AssertionError(f"a step that no driver knows: {type(step).__name__}")
