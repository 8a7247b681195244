"""One at a time, in order, on threads and loops; and who goes away while it waits takes nothing along."""

from __future__ import annotations

import asyncio
import threading

from retrysafe.operation.turn import Turn
from tests.drive.harness import in_loop


@in_loop
async def test_in_the_order_of_asking():
    """Tasks and threads alike."""
    turn, order = Turn(), []
    await turn.arrive()

    async def task(name: str) -> None:
        await turn.arrive()
        order.append(name)
        turn.end()

    def on_thread() -> None:
        turn.wait()
        order.append("thread")
        turn.end()

    loop = asyncio.get_running_loop()
    first = loop.create_task(task("first"))
    while len(turn._queue) < 1:  # noqa: ASYNC110 - the queue has no event
        await asyncio.sleep(0)
    thread = threading.Thread(target=on_thread)
    thread.start()
    while len(turn._queue) < 2:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0)
    last = loop.create_task(task("last"))
    await asyncio.sleep(0)
    turn.end()
    await asyncio.gather(first, last)
    thread.join()
    assert order == ["first", "thread", "last"]


@in_loop
async def test_cancelled_while_it_waits():
    """Its place is passed over."""
    turn = Turn()
    await turn.arrive()
    gone = asyncio.get_running_loop().create_task(turn.arrive())
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    turn.end()
    await turn.arrive()
    turn.end()


@in_loop
async def test_cancelled_in_the_moment_in_which_it_is_given():
    """The turn goes on to the next; it is not lost with whoever had it for no time."""
    turn = Turn()
    await turn.arrive()
    gone = asyncio.get_running_loop().create_task(turn.arrive())
    await asyncio.sleep(0)
    turn.end()
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert gone.cancelled()
    await turn.arrive()
    turn.end()
