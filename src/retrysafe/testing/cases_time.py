"""Cases about time: leases and retention."""

from __future__ import annotations

from typing import Any

import pytest

from retrysafe.model import Claim, State
from retrysafe.protocol.effects import Transition
from retrysafe.protocol.states import GUARDS, TABLE, Event, Guard
from retrysafe.protocol.transitions import CompleteIfHeld, ForgetIfOver, Purge, Purged, RenewIfHeld
from retrysafe.testing.subject import (
    KEEP_MS,
    LEASE_MS,
    LIFETIME_MS,
    OWNERS,
    RESPONSE,
    Cases,
    Subject,
)

STEP_MS = 3_600_000  # by which the clock of a host is set

HELD = (Guard.HELD, Guard.SEEN)
AFTER_LEASE = [event for event in Event if GUARDS[event] is Guard.LAPSED]
BY_OWNER = [(before, event) for before, event in TABLE if before is not None and GUARDS[event] in HELD]
FORGOTTEN = [before for before, event in TABLE if event is Event.FORGET]


class Leases(Cases):
    """How long a claim holds."""

    @pytest.mark.parametrize("event", AFTER_LEASE)
    def test_lease_holds_to_the_millisecond(self, subject: Subject, event: Event) -> None:
        """One millisecond before its end a lease holds; at its end it has lapsed."""
        claim = subject.claim()
        subject.clock.advance(LEASE_MS - 1)
        assert not subject.happen(event, claim)
        subject.clock.advance(1)
        assert subject.happen(event, claim)

    @pytest.mark.parametrize("event", OWNERS)
    def test_lapsed_lease_stays_with_its_owner(self, subject: Subject, event: Event) -> None:
        """A lapsed lease takes nothing from its owner until somebody else acts."""
        claim = subject.claim()
        subject.clock.advance(3 * LEASE_MS)
        assert subject.happen(event, claim)

    def test_renewal(self, subject: Subject) -> None:
        """A renewal moves the end of the lease, counted from now, and nothing else."""
        claim = subject.claim()
        subject.clock.advance(LEASE_MS // 3)
        assert subject.do(RenewIfHeld(claim, LEASE_MS, KEEP_MS))
        record = subject.record()
        assert record is not None
        assert record.lease_until_ms == subject.clock() + LEASE_MS
        assert record.forget_at_ms == subject.clock() + LEASE_MS + KEEP_MS
        assert record.claimed_at_ms == record.created_at_ms == subject.clock() - LEASE_MS // 3

    @pytest.mark.parametrize("event", AFTER_LEASE)
    def test_renewed_claim_is_not_taken(self, subject: Subject, event: Event) -> None:
        """Renewed at a third of its lease, a claim holds for many times its lease, and then to the millisecond."""
        claim = subject.claim()
        for _ in range(10):
            subject.clock.advance(LEASE_MS // 3)
            assert subject.happen(Event.RENEW, claim)
            assert not subject.happen(event, claim)
        subject.clock.advance(LEASE_MS - 1)
        assert not subject.happen(event, claim)
        subject.clock.advance(1)
        assert subject.happen(event, claim)

    def test_new_owner_has_a_whole_lease(self, subject: Subject) -> None:
        """Whoever took over cannot be taken over from at once."""
        claim = subject.claim()
        subject.clock.advance(LEASE_MS)
        assert subject.happen(Event.TAKE_OVER, claim)
        record = subject.record()
        assert record is not None
        second = Claim(subject.record_id, record.token, record.attempt)
        subject.clock.advance(LEASE_MS - 1)
        assert not subject.happen(Event.TAKE_OVER, second)
        assert subject.happen(Event.COMPLETE, second)

    def test_clock_never_goes_back(self, subject: Subject) -> None:
        """When the host's clock steps back, the store's stands: what was dated stays in the past."""
        claim = subject.claim()
        before_ms = subject.clock()
        subject.clock.advance(-3_600_000)
        found = subject.found()
        assert found is not None
        assert found.now_ms == before_ms
        assert subject.happen(Event.RENEW, claim)
        record = subject.record()
        assert record is not None
        assert record.lease_until_ms == before_ms + LEASE_MS


class ClockSteps(Cases):
    """The clock of a host is set: the store's stands, or goes on, and never goes back."""

    @pytest.mark.parametrize(("state", "event"), BY_OWNER)
    def test_nothing_is_dated_back(self, subject: Subject, state: State, event: Event) -> None:
        """What happens after the host's clock was set back is dated when the record was last written."""
        claim = subject.bring_to(state)
        before_ms = subject.clock()
        subject.clock.advance(-STEP_MS)
        assert subject.happen(event, claim)
        found = subject.found()
        if found is not None:
            record = found.record
            assert found.now_ms == before_ms
            assert record.claimed_at_ms == before_ms
            assert record.settled_at_ms in (None, before_ms)
            assert record.forget_at_ms > before_ms

    @pytest.mark.parametrize("event", AFTER_LEASE)
    def test_a_step_back_ends_no_lease_and_adds_to_it(self, subject: Subject, event: Event) -> None:
        """After a step back a lease lasts until the host's clock has come to its end, to the millisecond."""
        claim = subject.claim()
        subject.clock.advance(-STEP_MS)
        assert not subject.happen(event, claim)
        subject.clock.advance(STEP_MS + LEASE_MS - 1)
        assert not subject.happen(event, claim)
        subject.clock.advance(1)
        assert subject.happen(event, claim)

    @pytest.mark.parametrize("event", AFTER_LEASE)
    def test_a_step_forward_is_time(self, subject: Subject, event: Event) -> None:
        """A step forward ends the leases that it steps over; the step back takes nothing of that back."""
        claim = subject.claim()
        subject.clock.advance(STEP_MS)
        assert subject.happen(event, claim)
        after = subject.found()
        subject.clock.advance(-STEP_MS)
        assert subject.found() == after
        assert not subject.happen(Event.TAKE_OVER, claim)
        assert subject.found() == after

    def test_a_step_forward_and_back_shortens_no_new_lease(self, subject: Subject) -> None:
        """Whoever took over in a future that was taken back holds for a whole lease from there."""
        claim = subject.claim()
        subject.clock.advance(STEP_MS)
        assert subject.happen(Event.TAKE_OVER, claim)
        record = subject.record()
        assert record is not None
        second = Claim(subject.record_id, record.token, record.attempt)
        subject.clock.advance(-STEP_MS)
        assert not subject.happen(Event.ABANDON, second)
        subject.clock.advance(STEP_MS + LEASE_MS - 1)
        assert not subject.happen(Event.ABANDON, second)
        subject.clock.advance(1)
        assert subject.happen(Event.ABANDON, second)

    def test_a_step_back_expires_nothing(self, subject: Subject) -> None:
        """A lifetime ends when the host's clock has come to its end, however it came there."""
        subject.bring_to(State.COMPLETED)
        subject.clock.advance(-STEP_MS)
        assert subject.do(Purge()) == Purged(0, 0, more=False)
        subject.clock.advance(STEP_MS + LIFETIME_MS - 1)
        assert subject.do(Purge()) == Purged(0, 0, more=False)
        subject.clock.advance(1)
        assert subject.do(Purge()) == Purged(expired=1, forgotten=0, more=False)

    def test_time_never_goes_back_for_a_reader(self, subject: Subject) -> None:
        """The store's clock, as reads of one record tell it, only grows, whatever the host's does."""
        subject.claim()
        told = []
        for step_ms in (5, -STEP_MS, 3, STEP_MS, -7, 1, 86_400_000, -1):
            subject.clock.advance(step_ms)
            found = subject.found()
            assert found is not None
            told.append(found.now_ms)
        assert told == sorted(told)
        assert told[-1] == subject.clock() + 1


class Retention(Cases):
    """How long a record is kept."""

    def test_nothing_due(self, subject: Subject) -> None:
        """Where nothing is due, a purge does nothing."""
        assert subject.do(Purge()) == Purged(0, 0, more=False)
        subject.bring_to(State.COMPLETED)
        before = subject.record()
        assert subject.do(Purge()) == Purged(0, 0, more=False)
        assert subject.record() == before

    def test_lifetime_holds_to_the_millisecond(self, subject: Subject) -> None:
        """At the end of its lifetime, and not before, a record becomes a tombstone: all but its response stays."""
        claim = subject.bring_to(State.COMPLETED)
        before = subject.record()
        subject.clock.advance(LIFETIME_MS - 1)
        assert subject.do(Purge()) == Purged(0, 0, more=False)
        assert subject.record() == before
        subject.clock.advance(1)
        assert subject.do(Purge()) == Purged(expired=1, forgotten=0, more=False)
        record = subject.record()
        assert record is not None
        assert record.state is State.EXPIRED
        assert record.response is None
        assert (record.token, record.attempt) == (claim.token, 1)
        assert before is not None
        assert record.expires_at_ms == before.expires_at_ms
        assert record.forget_at_ms == before.forget_at_ms
        assert subject.do(subject.claiming()).record == record

    @pytest.mark.parametrize("by", ["forget", "purge"])
    @pytest.mark.parametrize("state", FORGOTTEN)
    def test_forgotten_to_the_millisecond(self, subject: Subject, state: State, by: str) -> None:
        """A settled record is deleted when its time to be forgotten has come; the next claim is a first one."""
        claim = subject.bring_to(state)
        record = subject.record()
        assert record is not None
        forget: Transition[Any] = Purge() if by == "purge" else ForgetIfOver(subject.record_id, claim.token)
        subject.clock.advance(record.forget_at_ms - 1 - subject.clock())
        assert subject.do(forget) in (False, Purged(0, 0, more=False), Purged(expired=1, forgotten=0, more=False))
        assert subject.record() is not None
        subject.clock.advance(1)
        assert subject.do(forget) in (True, Purged(expired=0, forgotten=1, more=False))
        assert subject.record() is None
        assert subject.do(subject.claiming()).record.attempt == 1

    def test_completed_without_tombstone_is_simply_forgotten(self, subject: Subject) -> None:
        """Where no tombstone is wanted, records go at the end of their lifetime, without being one in between."""
        for _ in range(3):
            claim = subject.claim_another()
            assert subject.do(CompleteIfHeld(claim, RESPONSE, LIFETIME_MS, forget_after_ms=0))
        subject.clock.advance(LIFETIME_MS)
        assert [subject.do(Purge(batch_max=1)) for _ in range(3)] == [
            Purged(expired=0, forgotten=1, more=True),
            Purged(expired=0, forgotten=1, more=True),
            Purged(expired=0, forgotten=1, more=False),
        ]

    def test_abandoned_record_does_not_vanish(self, subject: Subject) -> None:
        """A lapsed record in progress stands untouched, until its time is over; then it is unknown first."""
        subject.claim()
        before = subject.record()
        subject.clock.advance(LEASE_MS + KEEP_MS - 1)
        assert subject.do(Purge()) == Purged(0, 0, more=False)
        assert subject.record() == before
        subject.clock.advance(1)
        assert subject.do(Purge()) == Purged(0, 0, more=True)
        record = subject.record()
        assert record is not None
        assert record.state is State.UNKNOWN
        assert record.settled_at_ms == subject.clock()
        assert subject.do(Purge()) == Purged(expired=0, forgotten=1, more=False)
        assert subject.record() is None

    def test_purge_goes_in_batches(self, subject: Subject) -> None:
        """However much is due, one purge does so many of each and says that there is more."""
        for event in [Event.COMPLETE] * 5 + [Event.RELEASE] * 5 + [Event.RENEW] * 5:
            claim = subject.claim_another()
            assert subject.happen(event, claim)
        subject.bring_to(State.COMPLETED)
        subject.clock.advance(LIFETIME_MS - 1)
        assert subject.do(Purge(batch_max=2)) == Purged(0, 0, more=False)
        subject.clock.advance(LIFETIME_MS + KEEP_MS)
        batches = [subject.do(Purge(batch_max=2))]
        while batches[-1].more:
            assert len(batches) < 30
            batches.append(subject.do(Purge(batch_max=2)))
        assert all(batch.expired <= 2 and batch.forgotten <= 2 for batch in batches)
        assert sum(batch.forgotten for batch in batches) == 16
        assert len(batches) >= 8

    def test_expiring_goes_in_batches(self, subject: Subject) -> None:
        """Of five responses that are over, a purge of two drops two, two and one."""
        for _ in range(5):
            claim = subject.claim_another()
            assert subject.happen(Event.COMPLETE, claim)
        subject.clock.advance(LIFETIME_MS)
        assert [subject.do(Purge(batch_max=2)) for _ in range(4)] == [
            Purged(expired=2, forgotten=0, more=True),
            Purged(expired=2, forgotten=0, more=True),
            Purged(expired=1, forgotten=0, more=False),
            Purged(expired=0, forgotten=0, more=False),
        ]
