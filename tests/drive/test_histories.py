"""Any history of one key: attempts that overlap, leave, meet a failing store and outlive their lease.

Whatever happens, under the default policy the handler runs at most once, every client that gets its
answer gets the same one, and an answer that was given as recorded is given again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

import retrysafe.drive.aio
import retrysafe.drive.waiting
from retrysafe import Policy
from retrysafe.errors import StoreUnavailable
from retrysafe.model import State
from retrysafe.protocol.effects import Transition
from retrysafe.stores.memory import MemoryStore
from tests.doors.connections import Answer, Connection, ask, protected
from tests.doors.handlers import content_of, piece, start
from tests.drive.harness import PATIENCE_S, ManualClock, Noted, TamperedStore, eventually, others, states, turn

LEASE_MS = 10_000


@dataclass(frozen=True)
class Attempt:
    """One request.

    Attributes:
        after: turns of the loop since the one before.
        leaves: turns after which its task is cancelled, if at all.
        lapse: the lease of whoever is at work is over when it begins.
    """

    after: int
    leaves: int | None
    lapse: bool


@dataclass(frozen=True)
class Stumble:
    """What the store does with one transition.

    Attributes:
        before, after: turns that it takes until the transition is done, and until it is answered.
        fails: it fails `"before"` the transition is done, or `"after"`, so that the reply is lost.
    """

    before: int
    after: int
    fails: str | None


ATTEMPTS = st.lists(
    st.builds(Attempt, st.integers(0, 30), st.none() | st.integers(0, 40), st.booleans()), min_size=1, max_size=5
)
STUMBLES = st.lists(
    st.builds(Stumble, st.integers(0, 4), st.integers(0, 4), st.sampled_from([None, None, None, "before", "after"])),
    max_size=14,
)


@pytest.fixture(scope="module", autouse=True)
def _hasty():
    """The driver loses patience with a store that is away very soon."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrysafe.drive.aio, "SETTLE_S", 0.003)
        patch.setattr(retrysafe.drive.aio, "RETRY_FIRST_S", 0.001)
        patch.setattr(retrysafe.drive.aio, "RETRY_MOST_S", 0.001)
        patch.setattr(retrysafe.drive.waiting, "POLL_FIRST_S", 0.001)
        patch.setattr(retrysafe.drive.waiting, "POLL_MOST_S", 0.002)
        yield


class _Script:
    """A store that stumbles as it is told to, and then no more."""

    def __init__(self, stumbles: Sequence[Stumble]) -> None:
        self.left = list(stumbles)
        self.now: dict[int, Stumble] = {}

    async def before(self, transition: Transition[Any]) -> None:
        stumble = self.now[id(transition)] = self.left.pop(0) if self.left else Stumble(0, 0, None)
        await turn(stumble.before)
        if stumble.fails == "before":
            raise StoreUnavailable

    async def after(self, transition: Transition[Any]) -> None:
        stumble = self.now.pop(id(transition))
        await turn(stumble.after)
        if stumble.fails == "after":
            raise StoreUnavailable


async def _history(
    attempts: Sequence[Attempt], stumbles: Sequence[Stumble], ends: str, policy: Policy
) -> tuple[list[Answer], Answer, int, State]:
    """Let it happen; the answers, that of a last retry once all is quiet, the executions, and the state."""
    executions, clock, script = 0, ManualClock(), _Script(stumbles)

    async def handler(_connection, receive, send):
        nonlocal executions
        executions += 1
        number = executions
        await content_of(receive)
        await turn(5)
        if ends == "raises":
            raise ZeroDivisionError
        await send(start())
        await send(piece(b"order ", more=True))
        await turn(5)
        if ends == "breaks":
            raise ZeroDivisionError
        await send(piece(b"%d" % number))

    store = TamperedStore(MemoryStore(clock), script.before, script.after)
    door = protected(handler, store, policy=policy, observer=Noted())
    await door.open()
    connections, requests = [], []
    for attempt in attempts:
        await turn(attempt.after)
        clock.now_ms += LEASE_MS + 1 if attempt.lapse else 0
        connections.append(Connection())
        requests.append(asyncio.create_task(connections[-1].run(door)))
        if attempt.leaves is not None:
            await turn(attempt.leaves)
            requests[-1].cancel()
    await asyncio.wait(requests)
    script.left.clear()
    await eventually(lambda: not others())
    clock.now_ms += LEASE_MS + 1
    await Connection().run(door)  # runs, if none of them has
    last = await ask(door)
    (state,) = states(store)
    return [connection.answer for connection in connections], last, executions, state


async def _bounded(attempts: Sequence[Attempt], stumbles: Sequence[Stumble], ends: str, policy: Policy) -> Any:
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context.get("exception")))
    async with asyncio.timeout(PATIENCE_S):
        happened = await _history(attempts, stumbles, ends, policy)
    assert not [error for error in complaints if not isinstance(error, ZeroDivisionError)]
    return happened


POLICIES = [Policy(lease="10s"), Policy(lease="10s", in_flight="wait", wait="15ms")]


@given(ATTEMPTS, STUMBLES, st.sampled_from(["answers", "raises", "breaks"]), st.sampled_from(POLICIES))
def test_any_history_has_one_effect_and_one_outcome(attempts, stumbles, ends, policy):
    """At most one execution; one answer for everybody; what was given as recorded is given again."""
    answers, last, executions, state = asyncio.run(_bounded(attempts, stumbles, ends, policy))
    assert executions == 1
    status = {"answers": 201, "raises": 500}.get(ends, 0)
    done = [answer for answer in answers if answer.whole and answer.status == status]
    assert len({answer.body for answer in (*done, last) if answer.status == status}) <= 1
    refusals = {answer.code for answer in answers if answer.whole and answer.status != status}
    assert refusals <= {"in-progress", "outcome-unknown", "store-unavailable"}
    if last.status == status:
        assert state is State.COMPLETED
    else:
        assert (last.code, state) == ("outcome-unknown", State.UNKNOWN)
        assert all(answer.values("idempotency-status") == ["unrecorded"] for answer in done)
    event(f"{ends}, {state}, {len(done)} whole answers")
