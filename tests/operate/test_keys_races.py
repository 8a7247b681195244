"""Settling by hand while others settle too, and while the store fails."""

from __future__ import annotations

import pytest

from retrysafe import Policy
from retrysafe.errors import StoreUnavailable
from retrysafe.model import Response, State
from retrysafe.operate import keys, shown
from retrysafe.protocol.transitions import (
    AddHistory,
    CompleteIfHeld,
    CompleteIfUnknown,
    DiscardIfHeld,
    ForgetIfSeen,
    MarkUnknownIfHeld,
    MarkUnknownIfLapsed,
    Read,
    ReadDetails,
    ReleaseIfUnknown,
    RevokeIfSeen,
    TakeOverIfLapsed,
)
from retrysafe.stores.memory import MemoryStore
from retrysafe.testing import ManualClock
from tests.operate.shops import DAY_MS, NO_STEPS, claimed


class Meddled:
    """A store in which something happens right before a transition of one kind, or right after it."""

    def __init__(self, store, kind, before=lambda _: None, after=lambda _: None):
        self.store, self.kind, self.before, self.after = store, kind, before, after

    def perform(self, transition):
        if not isinstance(transition, self.kind):
            return self.store.perform(transition)
        self.before(self.store)
        answer = self.store.perform(transition)
        self.after(self.store)
        return answer


def away(_):
    """The store goes away."""
    raise StoreUnavailable


def desk(store):
    return keys.Desk(store, b"s" * 32, None, lambda _: Policy())


ANN = keys.Hand("ann", "asked the bank")
DEEDS = {
    "resolve --completed": (lambda at, i: keys.complete(at, i, Response(200, ()), ANN), CompleteIfUnknown),
    "resolve --not-done": (lambda at, i: keys.rule_out(at, i, ANN), ReleaseIfUnknown),
    "release": (lambda at, i: keys.release(at, i, ANN), RevokeIfSeen),
    "forget": (lambda at, i: keys.forget(at, i, ANN), ForgetIfSeen),
}


@pytest.mark.parametrize("name", DEEDS)
def test_whoever_was_first_wins_and_the_trail_says_so(name):
    """The late owner settles in the very moment: its outcome stands, and the deed is shown as one without effect."""
    deed, kind = DEEDS[name]
    store = MemoryStore(ManualClock())
    claim = claimed(store)
    if name != "release":
        store.perform(MarkUnknownIfHeld(claim, DAY_MS))
    meddled = Meddled(store, kind, lambda inner: inner.perform(CompleteIfHeld(claim, b"late", DAY_MS, DAY_MS)))
    with pytest.raises(keys.Refused, match="changed in that moment"):
        deed(desk(meddled), claim.record_id)
    details = store.perform(ReadDetails(claim.record_id))
    assert details.found
    assert details.found.record.response == b"late"
    (entry,) = shown.document(claim.record_id, details, None, NO_STEPS)["history"]
    assert (entry["action"], entry["took_effect"]) == (name, False)
    assert any("had no effect" in line for line in shown.lines(claim.record_id, details, None, NO_STEPS))


@pytest.mark.parametrize("event", ["taken over", "discarded"])
def test_what_is_stuck_may_be_taken_over_meanwhile(event):
    """Between the look and the deed: the new owner keeps its claim."""
    store = MemoryStore(clock := ManualClock())
    claim = claimed(store, lease_ms=1_000)
    clock.advance(1_000)
    happens = {
        "taken over": TakeOverIfLapsed(claim.record_id, claim.token, b"n" * 16, 60_000, DAY_MS),
        "discarded": DiscardIfHeld(claim),
    }[event]
    meddled = Meddled(store, MarkUnknownIfLapsed, lambda inner: inner.perform(happens))
    with pytest.raises(keys.Refused, match="changed in that moment"):
        keys.rule_out(desk(meddled), claim.record_id, ANN)
    found = store.perform(Read(claim.record_id))
    assert found is None or (found.record.state, found.record.token) == (State.IN_PROGRESS, b"n" * 16)


@pytest.mark.parametrize("name", DEEDS)
def test_nothing_is_done_that_was_not_written_down(name):
    """The trail cannot be written: the record stays as it is."""
    deed, _ = DEEDS[name]
    store = MemoryStore(ManualClock())
    claim = claimed(store)
    if name != "release":
        store.perform(MarkUnknownIfHeld(claim, DAY_MS))
    before = store.perform(ReadDetails(claim.record_id))

    with pytest.raises(StoreUnavailable):
        deed(desk(Meddled(store, AddHistory, away)), claim.record_id)
    assert store.perform(ReadDetails(claim.record_id)) == before


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("name", DEEDS)
def test_a_deed_whose_reply_is_lost_is_in_doubt(name, moment):
    """Done or not, it is said to be neither, and the trail has what was tried."""
    deed, kind = DEEDS[name]
    store = MemoryStore(ManualClock())
    claim = claimed(store)
    if name != "release":
        store.perform(MarkUnknownIfHeld(claim, DAY_MS))

    with pytest.raises(keys.InDoubt, match="may or may not"):
        deed(desk(Meddled(store, kind, **{moment: away})), claim.record_id)
    (entry,) = shown.document(claim.record_id, store.perform(ReadDetails(claim.record_id)), None, NO_STEPS)["history"]
    assert (entry["action"], entry["took_effect"]) == (name, True)
