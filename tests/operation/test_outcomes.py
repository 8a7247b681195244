"""What becomes of a request whose handler takes steps, or says when its effects begin, at a door."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from retrysafe import Policy, operation
from retrysafe.model import State
from retrysafe.operation import StepCall
from retrysafe.protocol.flow import RESUME_AFTER_MS
from retrysafe.stores.memory import MemoryStore
from tests.doors.connections import Connection, protected
from tests.drive.harness import ManualClock, eventually, in_loop, records

RESEND: dict[str, Any] = {"if_interrupted": "resend", "downstream_window": "1h"}


class Shop:
    """A door whose handler takes two steps, the second of which fails as often as it is told to."""

    def __init__(self, options: dict[str, Any], policy: Policy, *, answers: int | None = None) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        self.calls: list[StepCall] = []
        self.fails = 1
        self.options = options
        self.answers = answers
        app = Starlette()
        app.add_middleware(_Door, door=lambda inner: protected(inner, self.store, policy=policy))
        app.router.routes.append(Route("/orders", self.order, methods=["POST"]))
        self.app = app

    async def order(self, _: Any) -> Any:
        """Reserve, then charge; a failure goes up, or is answered by the handler itself."""
        await operation().step("reserve", self._reserve)
        try:
            charged = await operation().step("charge", self._charge, **self.options)
        except TimeoutError:
            if self.answers is None:
                raise
            return PlainTextResponse("the bank did not answer", self.answers)
        return JSONResponse({"charged": charged, "attempt": operation().attempt}, 201)

    async def _reserve(self, call: StepCall) -> str:
        self.calls.append(call)
        return "reserved"

    async def _charge(self, call: StepCall) -> str:
        self.calls.append(call)
        if self.fails:
            self.fails -= 1
            raise TimeoutError
        return "charged"

    async def ask(self) -> Any:
        """One request, and its answer."""
        return await Connection().run(self.app)

    def states(self) -> list[State]:
        """Of all records."""
        return [record.state for record in records(self.store)]


class _Door:
    """The door as middleware inside of the framework's error handling, where `add_middleware` puts it."""

    def __init__(self, app: Any, door: Any) -> None:
        self.app = door(app)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


@in_loop
async def test_a_failure_in_the_middle_is_resumed():
    """The client is told to ask again; the next attempt goes on from there, once the claim has lapsed."""
    shop = Shop(RESEND, Policy(recovery="rerun"))
    first = await shop.ask()
    document = json.loads(first.body)
    assert (first.status, document["code"], document["retryable"]) == (500, "handler-failed", True)
    assert first.values("retry-after") == ["1"]
    at_once = await shop.ask()
    assert at_once.code == "in-progress"
    shop.clock.now_ms += RESUME_AFTER_MS
    second = await shop.ask()
    assert (second.status, json.loads(second.body)) == (201, {"charged": "charged", "attempt": 2})
    assert (await shop.ask()).replayed
    assert len(shop.calls) == 3
    assert len({call.key for call in shop.calls}) == 2


@in_loop
@pytest.mark.parametrize(("options", "recovery"), [({}, "rerun"), ({}, "manual"), (RESEND, "manual")])
async def test_a_failure_in_the_middle_that_nobody_may_resume(options, recovery):
    """Nobody knows whether the bank did it: the outcome is unknown, and nothing is called again."""
    shop = Shop(options, Policy(recovery=recovery))
    assert [(await shop.ask()).code for _ in range(2)] == ["outcome-unknown"] * 2
    assert (shop.states(), len(shop.calls)) == ([State.UNKNOWN], 2)


@in_loop
@pytest.mark.parametrize(
    ("status", "state"), [(504, State.IN_PROGRESS), (402, State.COMPLETED), (202, State.COMPLETED)]
)
async def test_a_handler_that_answers_for_its_step(status, state):
    """Its 5xx is a failure like an exception; any other answer is the outcome, since the handler knows better."""
    shop = Shop(RESEND, Policy(recovery="rerun"), answers=status)
    first = await shop.ask()
    assert (first.status, first.body) == (status, b"the bank did not answer")
    assert shop.states() == [state]
    shop.clock.now_ms += RESUME_AFTER_MS
    second = await shop.ask()
    assert second.replayed is (state is State.COMPLETED)
    assert second.status == (status if second.replayed else 201)


@in_loop
async def test_a_zombie_gives_the_answer_of_whoever_took_over():
    """It stops at its next step, and its client gets the stored answer."""
    shop = Shop({}, Policy(recovery="rerun"))
    shop.fails = 0
    gate, there = asyncio.Event(), asyncio.Event()
    reserve = shop._reserve

    async def slow(call: StepCall) -> str:
        there.set()
        if len(shop.calls) == 0:
            result = await reserve(call)
            await gate.wait()
            return result
        return await reserve(call)

    shop._reserve = slow  # type: ignore[method-assign]  # the first attempt stays where it is
    loop = asyncio.get_running_loop()
    zombie = loop.create_task(shop.ask())
    await there.wait()
    shop.clock.now_ms += 60_000
    owner = await shop.ask()  # an attempt that finds the reservation open, and may not repeat it
    assert owner.code == "outcome-unknown"
    gate.set()
    assert (await zombie).code == "outcome-unknown"
    assert [call.attempt for call in shop.calls] == [1]


# --- handlers that say when their effects begin ---------------------------------------------------


def declaring(fails: str, answers: int | None = None) -> tuple[Any, list[str]]:
    """A door whose handler validates, says that its effects begin, and does something; it fails where it is told to."""
    did: list[str] = []

    async def order(_: Any) -> Any:
        did.append("validated")
        if fails == "before" and len(did) == 1:
            if answers:
                return PlainTextResponse("no", answers)
            raise ConnectionError
        operation().begin_effects()
        did.append("effect")
        if fails == "after":
            raise ConnectionError
        return PlainTextResponse("done", 201)

    app = Starlette(routes=[Route("/orders", order, methods=["POST"])])
    app.add_middleware(_Door, door=lambda inner: protected(inner, policy=Policy(effects="declared")))
    return app, did


async def _asked(app: Any) -> Any:
    return await Connection().run(app)


@in_loop
@pytest.mark.parametrize(("answers", "status"), [(None, 500), (503, 503)])
async def test_a_failure_before_effects_begin_leaves_nothing_behind(answers, status):
    """The next attempt runs."""
    app, did = declaring("before", answers)
    first = await _asked(app)
    assert first.status == status
    if answers is None:
        assert json.loads(first.body)["retryable"] is True
    second = await _asked(app)
    assert (second.status, second.replayed) == (201, False)
    assert did == ["validated", "validated", "effect"]


@in_loop
async def test_an_answer_before_effects_begin_is_an_outcome():
    """A refusal that is final is recorded, whatever was begun."""
    app, did = declaring("before", 422)
    assert [(await _asked(app)).replayed for _ in range(2)] == [False, True]
    assert did == ["validated"]


@in_loop
async def test_a_failure_after_effects_have_begun_is_recorded():
    """As on any other route."""
    app, did = declaring("after")
    answers = [await _asked(app) for _ in range(2)]
    assert [(answer.status, answer.replayed) for answer in answers] == [(500, False), (500, True)]
    assert did == ["validated", "effect"]


@in_loop
@pytest.mark.parametrize("begun", [False, True])
async def test_a_handler_that_is_cut_off(begun):
    """The server stops: before effects begin nothing happened, and afterwards nobody knows."""
    store, there = MemoryStore(ManualClock()), asyncio.Event()

    async def order(_: Any) -> Any:
        if begun:
            operation().begin_effects()
        there.set()
        await asyncio.get_running_loop().create_future()

    app = Starlette(routes=[Route("/orders", order, methods=["POST"])])
    door = protected(app, store, policy=Policy(effects="declared"), drain="0s")
    asking = asyncio.get_running_loop().create_task(_asked(door))
    await there.wait()
    await door.close()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    await eventually(lambda: [record.state for record in records(store)] != [State.IN_PROGRESS])
    assert [record.state for record in records(store)] == [State.UNKNOWN if begun else State.RETRYABLE]


@in_loop
async def test_what_has_taken_steps_cannot_be_as_if_it_had_never_run():
    """A handler that says so after a step keeps its journal all the same: the next attempt does not call again."""
    calls: list[StepCall] = []

    async def charge(call: StepCall) -> str:
        calls.append(call)
        return "charged"

    async def order(_: Any) -> Any:
        charged = await operation().step("charge", charge)
        operation().not_run()
        return JSONResponse({"charged": charged, "attempt": operation().attempt}, 400)

    app = protected(Starlette(routes=[Route("/orders", order, methods=["POST"])]))
    answers = [await Connection().run(app) for _ in range(2)]
    assert [json.loads(answer.body)["attempt"] for answer in answers] == [1, 2]
    assert len(calls) == 1
