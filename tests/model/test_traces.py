"""Traces of records against the model's table: hand-made ones, and those of a store that is watched."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any

import pytest

from model.tlc import SPECIFICATION, table
from model.traces import Move, faults
from retrysafe.model import Claim, Found, Record, State
from retrysafe.protocol import transitions
from retrysafe.protocol.effects import Transition
from retrysafe.protocol.states import TABLE, Event
from retrysafe.stores.memory import MemoryStore
from retrysafe.testing.clock import ManualClock

MODEL = table(SPECIFICATION.read_text("utf-8"))
TRACES = 10_000 if os.environ.get("RETRYSAFE_PROVE") else 300

CLAIMED = Move("claim", None, "in_progress")
GOOD = [
    [],
    [CLAIMED, Move("complete", "in_progress", "completed"), Move("expire", "completed", "expired")],
    [CLAIMED, Move("discard", "in_progress", None), CLAIMED],
    [CLAIMED, Move("release", "in_progress", "retryable"), Move("claim again", "retryable", "in_progress")],
    [CLAIMED, Move("abandon", "in_progress", "unknown"), Move("complete", "unknown", "completed")],
    [CLAIMED, Move("take over", "in_progress", "in_progress"), Move("give up", "in_progress", "unknown"),
     Move("resolve as not done", "unknown", "retryable"), Move("forget", "retryable", None), CLAIMED],
]  # fmt: skip
BAD = [
    ([CLAIMED, Move("complete", "in_progress", "retryable")], "in no model"),
    ([CLAIMED, Move("claim again", "in_progress", "in_progress")], "in no model"),
    ([CLAIMED, Move("forget", "in_progress", None)], "in no model"),
    ([CLAIMED, Move("finish", "in_progress", "completed")], "in no model"),
    ([CLAIMED, CLAIMED], "begins at absent, but the record was in_progress"),
    ([Move("complete", "in_progress", "completed")], "begins at in_progress, but the record was absent"),
    ([CLAIMED, Move("complete", "in_progress", "completed"), Move("release", "in_progress", "retryable")],
     "begins at in_progress, but the record was completed"),
]  # fmt: skip


@pytest.mark.parametrize("trace", GOOD)
def test_a_good_trace(trace):
    """The model has it."""
    assert not list(faults(trace, MODEL))


@pytest.mark.parametrize(("trace", "fault"), BAD)
def test_a_bad_trace(trace, fault):
    """The fault is named, with the move at which it shows."""
    (said,) = faults(trace, MODEL)
    assert fault in said
    assert said.startswith(f"move {len(trace)}")


EVENTS: dict[type[Transition[Any]], Event] = {
    transitions.ClaimIfAbsent: Event.CLAIM,
    transitions.TakeOverIfLapsed: Event.TAKE_OVER,
    transitions.ClaimIfRetryable: Event.RECLAIM,
    transitions.RenewIfHeld: Event.RENEW,
    transitions.KeepJournalIfHeld: Event.JOURNAL,
    transitions.CompleteIfHeld: Event.COMPLETE,
    transitions.ReleaseIfHeld: Event.RELEASE,
    transitions.DiscardIfHeld: Event.DISCARD,
    transitions.MarkUnknownIfHeld: Event.GIVE_UP,
    transitions.MarkUnknownIfLapsed: Event.ABANDON,
    transitions.CompleteIfUnknown: Event.RESOLVE,
    transitions.ReleaseIfUnknown: Event.RULE_OUT,
    transitions.RevokeIfSeen: Event.REVOKE,
    transitions.ReplaceResponseIfSame: Event.RESEAL,
    transitions.ForgetIfSeen: Event.ERASE,
    transitions.ForgetIfOver: Event.FORGET,
}
ID = b"r" * 32
BRIEF_MS = 100


class Watched:
    """A store with one record, whose every move is kept."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        self.trace: list[Move] = []

    def record(self) -> Record | None:
        """As it stands."""
        found = self.store.perform(transitions.Read(ID))
        return None if found is None else found.record

    def state(self) -> State | None:
        """Of the record."""
        record = self.record()
        return None if record is None else record.state

    def do(self, transition: Transition[Any]) -> None:
        """Do it; if it took effect, it is a move. A purge says by where the record stands what it did."""
        before = self.state()
        answer = self.store.perform(transition)
        after = self.state()
        if isinstance(transition, transitions.Purge):
            events = [event for (state, event), end in TABLE.items() if (state, end) == (before, after)]
            purged = {Event.FORGET, Event.EXPIRE, Event.ABANDON} & set(events)
            self.trace += [Move(event, before, after) for event in purged if before != after]
        elif isinstance(answer, Found):
            self.trace += [CLAIMED] if before is None else []
        elif answer:
            self.trace.append(Move(EVENTS[type(transition)], before, after))


def _wishes(chance: random.Random, token: bytes, state: State | None) -> Iterator[Transition[Any]]:
    """Whatever anybody might ask of the record who knows this token."""
    claim = Claim(ID, token, attempt=1)
    new, brief = chance.randbytes(16), BRIEF_MS
    yield transitions.ClaimIfAbsent(ID, new, b"\1print", brief, brief)
    yield transitions.TakeOverIfLapsed(ID, token, new, brief, brief)
    yield transitions.ClaimIfRetryable(ID, token, new, brief, brief)
    yield transitions.RenewIfHeld(claim, brief, brief)
    yield transitions.KeepJournalIfHeld(claim, b"journal")
    yield transitions.CompleteIfHeld(claim, b"answer", brief, brief)
    yield transitions.ReleaseIfHeld(claim, brief)
    yield transitions.DiscardIfHeld(claim)
    yield transitions.MarkUnknownIfHeld(claim, brief)
    yield transitions.MarkUnknownIfLapsed(ID, token, brief)
    yield transitions.CompleteIfUnknown(ID, token, b"answer", brief, brief)
    yield transitions.ReleaseIfUnknown(ID, token, brief)
    yield transitions.RevokeIfSeen(ID, token, brief)
    yield transitions.ReplaceResponseIfSame(ID, token, b"answer", b"answer")
    yield transitions.ForgetIfSeen(ID, token, state or State.UNKNOWN)
    yield transitions.ForgetIfOver(ID, token)
    yield transitions.Purge()


def test_what_a_store_does_is_in_the_model():
    """Everything that anybody may ask for, in any order, with time passing: each trace is one of the model's."""
    seed = int(os.environ.get("RETRYSAFE_SEED", "20240917"))
    seen: set[Move] = set()
    for number in range(TRACES):
        chance, watched, tokens = random.Random(seed + number), Watched(), [b"t" * 16]
        for _ in range(40):
            watched.clock.advance(chance.choice((0, 0, 0, BRIEF_MS // 2, 2 * BRIEF_MS)))
            if (record := watched.record()) is not None and record.token != tokens[-1]:
                tokens.append(record.token)
            token = chance.choice((*tokens[-2:], tokens[-1]))  # its owner's, a former owner's
            watched.do(chance.choice(list(_wishes(chance, token, record.state if record else None))))
        assert not list(faults(watched.trace, MODEL)), f"replay with RETRYSAFE_SEED={seed + number}"
        seen.update(watched.trace)
    assert seen == MODEL
