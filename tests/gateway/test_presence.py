"""Whoever leaves in the moment in which the patience with the upstream ends takes nobody else's patience along."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from retrysafe.gateway.presence import Client, Watch


async def _silent():
    await asyncio.get_running_loop().create_future()


async def _leaves_as_it_is_given_up(watch: Watch) -> Client:
    """An exchange that ends already when it is looked at."""
    loop = asyncio.get_running_loop()
    client = Client(_silent, (), protected=False, silence_s=0)
    watch.begin(client)
    client.hurry()

    async def exchange() -> None:
        async with client.stay:
            client.stay.reschedule(0)  # as when the client is seen to leave
            loop.call_soon(watch._look)  # after that, and before its task goes on
            await _silent()

    with pytest.raises(TimeoutError):
        await exchange()
    watch.give_up("the gateway was shut down")  # its task is still telling the client
    watch.end(client)
    return client


@pytest.mark.parametrize("loops", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_an_exchange_that_ends_already(loops):
    """It is not given up a second time; the timer goes on, and ends the next one that waits in vain."""

    async def both() -> None:
        failures: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        watch = Watch()
        assert (await _leaves_as_it_is_given_up(watch)).given_up == ""
        waiting = Client(_silent, (), protected=False, silence_s=0.01)
        watch.begin(waiting)
        waiting.hurry()

        async def exchange() -> None:
            async with asyncio.timeout(10), waiting.stay:
                await _silent()

        with pytest.raises(TimeoutError):
            await exchange()
        assert (waiting.given_up, failures) == ("the upstream was silent for 0.01 s", [])
        watch.end(waiting)

    with asyncio.Runner(loop_factory=loops) as runner:
        runner.run(both())
