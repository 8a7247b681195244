"""Cases about single moves: the table, claims, settlements."""

from __future__ import annotations

import secrets

import pytest

from retrysafe.model import Claim, Found, Record, State
from retrysafe.protocol.states import GUARDS, TABLE, Event, Guard
from retrysafe.protocol.transitions import (
    ClaimIfAbsent,
    ClaimIfRetryable,
    CompleteIfHeld,
    ForgetIfSeen,
    Read,
    TakeOverIfLapsed,
)
from retrysafe.testing.subject import (
    FINGERPRINT,
    KEEP_MS,
    LEASE_MS,
    LIFETIME_MS,
    OWNERS,
    RESPONSE,
    STEPS,
    WAIT_MS,
    Cases,
    Subject,
    token,
)

SEEN = [(before, event) for before, event in TABLE if GUARDS[event] in (Guard.SEEN, Guard.LAPSED, Guard.FORGETTABLE)]
BY_TOKEN = [(before, event) for before, event in TABLE if GUARDS[event] not in (Guard.ABSENT, Guard.LIFETIME_OVER)]


class TheTable(Cases):
    """What may follow what, and who may do it."""

    @pytest.mark.parametrize("event", list(Event))
    @pytest.mark.parametrize("state", [None, *State])
    def test_move(self, subject: Subject, state: State | None, event: Event) -> None:
        """What is in the table happens; what is not is refused and changes nothing."""
        claim = subject.bring_to(state)
        subject.clock.advance(WAIT_MS[GUARDS[event]])
        before = subject.record()
        happened = subject.happen(event, claim)
        if (state, event) in TABLE:
            assert happened
            assert subject.state() is TABLE[state, event]
        else:
            assert not happened or before is None
            assert subject.record() == before

    @pytest.mark.parametrize(("state", "event"), BY_TOKEN)
    def test_other_token_is_refused(self, subject: Subject, state: State, event: Event) -> None:
        """Where the table allows a move and time has come, a token that is not the record's is refused."""
        subject.bring_to(state)
        subject.clock.advance(WAIT_MS[GUARDS[event]])
        before = subject.record()
        assert not subject.happen(event, Claim(subject.record_id, token(), 1))
        assert subject.record() == before

    @pytest.mark.parametrize("seen_state", list(State))
    @pytest.mark.parametrize("state", [before for before, event in TABLE if event is Event.ERASE])
    def test_seen_in_another_state_is_left(self, subject: Subject, state: State, seen_state: State) -> None:
        """Whoever forgets a record by hand forgets what they saw: in another state than that, it stays."""
        claim = subject.bring_to(state)
        before = subject.record()
        assert subject.do(ForgetIfSeen(subject.record_id, claim.token, seen_state)) is (state is seen_state)
        assert subject.record() == (None if state is seen_state else before)

    @pytest.mark.parametrize("event", OWNERS)
    def test_stale_owner_is_refused(self, subject: Subject, event: Event) -> None:
        """Whoever was taken over from can no longer do anything."""
        stale = subject.bring_to(State.IN_PROGRESS)
        subject.clock.advance(LEASE_MS)
        assert subject.happen(Event.TAKE_OVER, stale)
        before = subject.record()
        assert not subject.happen(event, stale)
        assert subject.record() == before

    @pytest.mark.parametrize("event", OWNERS)
    def test_owner_of_an_earlier_attempt_is_refused(self, subject: Subject, event: Event) -> None:
        """A released claim is over, also while the next attempt runs."""
        earlier = subject.bring_to(State.RETRYABLE)
        assert subject.happen(Event.RECLAIM, earlier)
        before = subject.record()
        assert not subject.happen(event, earlier)
        assert subject.record() == before

    @pytest.mark.parametrize("event", OWNERS)
    @pytest.mark.parametrize("settled", [Event.COMPLETE, Event.RELEASE, Event.GIVE_UP, Event.ABANDON])
    def test_stale_owner_is_refused_whatever_the_next_did(self, subject: Subject, settled: Event, event: Event) -> None:
        """Whoever was taken over from does not settle what the next owner left, least of all its unknown."""
        stale = subject.claim()
        second = self._taken_over(subject, stale)
        subject.clock.advance(LEASE_MS)
        assert subject.happen(settled, second)
        before = subject.record()
        assert not subject.happen(event, stale)
        assert subject.record() == before

    @pytest.mark.parametrize("event", OWNERS)
    def test_owner_of_a_record_that_is_gone_is_refused(self, subject: Subject, event: Event) -> None:
        """Where a record was discarded and claimed anew, the token of the first one is worth nothing."""
        stale = subject.claim()
        assert subject.happen(Event.DISCARD, stale)
        subject.claim()
        before = subject.record()
        assert not subject.happen(event, stale)
        assert subject.record() == before

    @pytest.mark.parametrize(("state", "event"), SEEN)
    def test_old_view_is_refused(self, subject: Subject, state: State, event: Event) -> None:
        """A token that the record had an attempt ago is refused, though state and time are right."""
        first = subject.claim()
        second = self._taken_over(subject, first)
        for step in STEPS[state]:
            subject.clock.advance(WAIT_MS[GUARDS[step]])
            assert subject.happen(step, second)
        assert subject.state() is state
        subject.clock.advance(LIFETIME_MS + KEEP_MS)
        before = subject.record()
        assert not subject.happen(event, first)
        assert subject.record() == before

    def _taken_over(self, subject: Subject, claim: Claim) -> Claim:
        subject.clock.advance(LEASE_MS)
        assert subject.happen(Event.TAKE_OVER, claim)
        record = subject.record()
        assert record is not None
        return Claim(subject.record_id, record.token, record.attempt)

    @pytest.mark.parametrize("event", [event for event in OWNERS if event is not Event.RENEW])
    def test_a_settlement_is_final_for_its_owner(self, subject: Subject, event: Event) -> None:
        """What is completed stays as it was completed, whatever its owner says afterwards."""
        claim = subject.bring_to(State.COMPLETED)
        before = subject.record()
        assert not subject.happen(event, claim)
        assert subject.record() == before


class Claims(Cases):
    """Who holds a record."""

    def test_first_claim(self, subject: Subject) -> None:
        """A first claim holds, and its record is new in every part."""
        claiming = subject.claiming()
        now_ms = subject.clock()
        expected = Record(
            state=State.IN_PROGRESS,
            token=claiming.token,
            attempt=1,
            fingerprint=FINGERPRINT,
            created_at_ms=now_ms,
            claimed_at_ms=now_ms,
            lease_until_ms=now_ms + LEASE_MS,
            settled_at_ms=None,
            expires_at_ms=None,
            forget_at_ms=now_ms + LEASE_MS + KEEP_MS,
            response=None,
        )
        assert subject.do(claiming) == Found(expected, now_ms)
        assert subject.found() == Found(expected, now_ms)

    def test_second_claim_changes_nothing(self, subject: Subject) -> None:
        """A claim on a record that is there reads it, whatever the claim says, and the clock."""
        subject.claim()
        before = subject.record()
        subject.clock.advance(7)
        found = subject.do(ClaimIfAbsent(subject.record_id, token(), b"another fingerprint", 1, 1))
        assert found.record == before
        assert found.now_ms == subject.clock()
        assert subject.record() == before

    @pytest.mark.parametrize("state", list(State))
    def test_repeated_claim_recognises_itself(self, subject: Subject, state: State) -> None:
        """A claim whose answer was lost is repeated: it finds its own token, and a lease as old as it is."""
        claim = subject.bring_to(state)
        before = subject.record()
        subject.clock.advance(1)
        found = subject.do(subject.claiming(claim.token))
        assert found.record == before
        assert found.record.token == claim.token

    @pytest.mark.parametrize("state", [State.IN_PROGRESS, State.UNKNOWN])
    def test_claim_after_discard_is_a_first_claim(self, subject: Subject, state: State) -> None:
        """A discarded record leaves nothing behind."""
        claim = subject.bring_to(state)
        assert subject.happen(Event.DISCARD, claim)
        subject.clock.advance(5)
        found = subject.do(subject.claiming())
        assert found.record.attempt == 1
        assert found.record.created_at_ms == subject.clock()
        assert found.record.token != claim.token

    def test_take_over(self, subject: Subject) -> None:
        """A new claim on a lapsed record: another token, the next attempt, a new lease, the same history."""
        claim = subject.claim()
        first = subject.record()
        subject.clock.advance(LEASE_MS + 3)
        taking = TakeOverIfLapsed(subject.record_id, claim.token, token(), 2 * LEASE_MS, KEEP_MS)
        assert subject.do(taking)
        assert subject.record() == self._claimed_anew(subject, first, taking)

    def test_claim_of_a_retryable_record(self, subject: Subject) -> None:
        """A new claim after a release: as a take-over, and no longer settled."""
        claim = subject.bring_to(State.RETRYABLE)
        released = subject.record()
        subject.clock.advance(9)
        claiming = ClaimIfRetryable(subject.record_id, claim.token, token(), 2 * LEASE_MS, KEEP_MS)
        assert subject.do(claiming)
        assert subject.record() == self._claimed_anew(subject, released, claiming)

    def _claimed_anew(
        self, subject: Subject, before: Record | None, claiming: TakeOverIfLapsed | ClaimIfRetryable
    ) -> Record:
        assert before is not None
        lease_until_ms = subject.clock() + claiming.lease_ms
        return Record(
            state=State.IN_PROGRESS,
            token=claiming.token,
            attempt=before.attempt + 1,
            fingerprint=before.fingerprint,
            created_at_ms=before.created_at_ms,
            claimed_at_ms=subject.clock(),
            lease_until_ms=lease_until_ms,
            settled_at_ms=None,
            expires_at_ms=None,
            forget_at_ms=lease_until_ms + claiming.forget_after_ms,
            response=None,
        )

    def test_attempts_are_counted(self, subject: Subject) -> None:
        """Each claim of a record has the next number, whether taken over or claimed again."""
        subject.claim()
        for attempt in range(1, 6):
            record = subject.record()
            assert record is not None
            assert record.attempt == attempt
            claim = Claim(subject.record_id, record.token, attempt)
            if attempt % 2:
                subject.clock.advance(LEASE_MS)
                assert subject.happen(Event.TAKE_OVER, claim)
            else:
                assert subject.happen(Event.RELEASE, claim)
                assert subject.happen(Event.RECLAIM, claim)

    def test_the_attempt_number_decides_nothing(self, subject: Subject) -> None:
        """A claim is its token: another number beside it does no harm."""
        claim = subject.claim()
        assert subject.happen(Event.COMPLETE, Claim(claim.record_id, claim.token, 77))

    def test_records_do_not_touch_each_other(self, subject: Subject) -> None:
        """What happens to one record happens to no other."""
        subject.claim()
        untouched = subject.found()
        for event in OWNERS:
            claim = subject.claim_another()
            assert subject.happen(event, claim)
            found = subject.do(Read(claim.record_id))
            assert (found and found.record.state) is TABLE[State.IN_PROGRESS, event]
        assert subject.found() == untouched


class Settlements(Cases):
    """What becomes of a claim."""

    @pytest.mark.parametrize("before", [State.IN_PROGRESS, State.UNKNOWN])
    def test_complete(self, subject: Subject, before: State) -> None:
        """Completion keeps the response and starts the lifetime, from now."""
        claim = subject.bring_to(before)
        subject.clock.advance(11)
        assert subject.do(CompleteIfHeld(claim, RESPONSE, LIFETIME_MS, KEEP_MS))
        self._assert_settled(subject, subject.clock() + LIFETIME_MS, subject.clock() + LIFETIME_MS + KEEP_MS, RESPONSE)

    @pytest.mark.parametrize("event", [Event.RELEASE, Event.GIVE_UP])
    def test_settle_without_response(self, subject: Subject, event: Event) -> None:
        """A release and an outcome that the owner cannot tell date the record, from now."""
        claim = subject.claim()
        subject.clock.advance(11)
        assert subject.happen(event, claim)
        self._assert_settled(subject, None, subject.clock() + KEEP_MS, None)

    def test_abandon(self, subject: Subject) -> None:
        """A record that is given up for its owner is dated now, not when its lease lapsed."""
        claim = subject.claim()
        subject.clock.advance(3 * LEASE_MS)
        assert subject.happen(Event.ABANDON, claim)
        self._assert_settled(subject, None, subject.clock() + KEEP_MS, None)

    def _assert_settled(
        self, subject: Subject, expires_at_ms: int | None, forget_at_ms: int, response: bytes | None
    ) -> None:
        record = subject.record()
        assert record is not None
        assert record.settled_at_ms == subject.clock()
        assert record.expires_at_ms == expires_at_ms
        assert record.forget_at_ms == forget_at_ms
        assert record.response == response
        assert record.attempt == 1
        assert record.fingerprint == FINGERPRINT

    @pytest.mark.parametrize("size_bytes", [0, 1, 4_095, 1 << 20, (5 << 20) + 1])
    def test_response_is_kept_to_the_byte(self, subject: Subject, size_bytes: int) -> None:
        """A response comes back as it was, however long it is, to a read and to a claim."""
        response = secrets.token_bytes(size_bytes)
        claim = subject.claim()
        assert subject.do(CompleteIfHeld(claim, response, LIFETIME_MS, KEEP_MS))
        record = subject.record()
        assert record is not None
        assert record.response == response
        assert subject.do(subject.claiming()).record.response == response

    def test_second_completion_keeps_the_first(self, subject: Subject) -> None:
        """A completion that is repeated does nothing: the first response stands, with its dates."""
        claim = subject.bring_to(State.COMPLETED)
        before = subject.record()
        subject.clock.advance(1)
        assert not subject.do(CompleteIfHeld(claim, b"another", LIFETIME_MS, KEEP_MS))
        assert subject.record() == before
