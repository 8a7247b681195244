"""Cases about values at their edges: bytes of every kind, durations of none and of centuries, many attempts."""

from __future__ import annotations

import pytest

from retrysafe.model import Claim, State
from retrysafe.protocol.states import Event
from retrysafe.protocol.transitions import (
    ClaimIfAbsent,
    CompleteIfHeld,
    ForgetIfOver,
    MarkUnknownIfHeld,
    MarkUnknownIfLapsed,
    Purge,
    Purged,
    Read,
    ReleaseIfHeld,
    RenewIfHeld,
    TakeOverIfLapsed,
)
from retrysafe.testing.subject import (
    FINGERPRINT,
    KEEP_MS,
    LEASE_MS,
    LIFETIME_MS,
    Cases,
    Subject,
    token,
    transition_of,
)

CENTURY_MS = 100 * 366 * 86_400_000
ATTEMPTS = 130  # more than a signed byte counts

# What a store that takes bytes for text, or pads them, or folds their case, does not give back.
AWKWARD = {
    "zeros": bytes(32),
    "ones": b"\xff" * 32,
    "text": b"abcdefghijklmnopqrstuvwxyzABCDEF",
    "blanks": b"  leading and trailing blanks.  ",
    "zero at the end": b"thirty-one bytes and then a zer\0",
    "line ends": b"\r\n" * 16,
    "quotes": b"'\"`\\%_?$1:{};--/*\0*/'\"`\\%_?$1:{}",
    "not UTF-8": b"\xc3\x28\xa0\xa1\xe2\x28\xa1\xf0\x28\x8c\xbc\xed\xa0\x80\xfe\xff" * 2,
}

# Pairs that a store must tell apart.
ALIKE = {
    "last bit": (bytes(31) + b"\0", bytes(31) + b"\1"),
    "first bit": (b"\0" + bytes(31), b"\x80" + bytes(31)),
    "case": (b"a" * 32, b"A" * 32),
    "blank and zero at the end": (b"x" * 31 + b" ", b"x" * 31 + b"\0"),
    "accent": (b"e" * 31 + b"\xe9", b"e" * 31 + b"\xe8"),
}


class Edges(Cases):
    """Values at their edges."""

    @pytest.mark.parametrize("content", AWKWARD.values(), ids=AWKWARD)
    def test_bytes_are_kept_as_they_are(self, subject: Subject, content: bytes) -> None:
        """A token, a fingerprint and a response come back byte for byte, whatever the bytes."""
        claiming = ClaimIfAbsent(subject.record_id, content[:16], b"\x01" + content, LEASE_MS, KEEP_MS)
        assert subject.do(claiming).record.token == content[:16]
        claim = Claim(subject.record_id, content[:16], 1)
        assert subject.do(CompleteIfHeld(claim, content, LIFETIME_MS, KEEP_MS))
        record = subject.record()
        assert record is not None
        assert record.token == content[:16]
        assert record.fingerprint == b"\x01" + content
        assert record.response == content

    @pytest.mark.parametrize("record_id", AWKWARD.values(), ids=AWKWARD)
    def test_ids_are_bytes(self, subject: Subject, record_id: bytes) -> None:
        """A record is found by its id, whatever its bytes, and led through its life."""
        subject.record_id = record_id
        claim = subject.bring_to(State.RETRYABLE)
        assert subject.happen(Event.RECLAIM, claim)
        record = subject.record()
        assert record is not None
        assert subject.happen(Event.DISCARD, Claim(record_id, record.token, 2))
        assert subject.record() is None

    @pytest.mark.parametrize(("one", "other"), ALIKE.values(), ids=ALIKE)
    def test_ids_that_are_alike_are_two(self, subject: Subject, one: bytes, other: bytes) -> None:
        """Two ids that differ in the least are two records."""
        claims = [ClaimIfAbsent(record_id, token(), FINGERPRINT, LEASE_MS, KEEP_MS) for record_id in (one, other)]
        assert [subject.do(claim).record.token for claim in claims] == [claim.token for claim in claims]
        assert subject.do(ReleaseIfHeld(Claim(one, claims[0].token, 1), KEEP_MS))
        found = subject.do(Read(other))
        assert found is not None
        assert found.record.state is State.IN_PROGRESS

    @pytest.mark.parametrize(("mine", "other"), ALIKE.values(), ids=ALIKE)
    def test_tokens_that_are_alike_are_two(self, subject: Subject, mine: bytes, other: bytes) -> None:
        """A token that differs in the least is another's."""
        mine, other = mine[:8] + mine[-8:], other[:8] + other[-8:]
        subject.do(subject.claiming(mine))
        assert subject.do(subject.claiming(other)).record.token == mine
        assert not subject.do(ReleaseIfHeld(Claim(subject.record_id, other, 1), KEEP_MS))
        assert subject.do(ReleaseIfHeld(Claim(subject.record_id, mine, 1), KEEP_MS))

    @pytest.mark.parametrize("event", [Event.TAKE_OVER, Event.ABANDON, Event.RENEW, Event.COMPLETE])
    def test_lease_of_nothing(self, subject: Subject, event: Event) -> None:
        """A lease of 0 ms has lapsed when it begins; until somebody acts, its owner still may."""
        claiming = ClaimIfAbsent(subject.record_id, token(), FINGERPRINT, 0, KEEP_MS)
        found = subject.do(claiming)
        assert found.record.lease_until_ms == found.now_ms
        assert subject.happen(event, Claim(subject.record_id, claiming.token, 1))

    def test_lease_of_a_century(self, subject: Subject) -> None:
        """A lease may be longer than any machine runs: it holds to its last millisecond."""
        claiming = ClaimIfAbsent(subject.record_id, token(), FINGERPRINT, CENTURY_MS, CENTURY_MS)
        record = subject.do(claiming).record
        assert record.lease_until_ms == subject.clock() + CENTURY_MS
        assert record.forget_at_ms == subject.clock() + 2 * CENTURY_MS
        subject.clock.advance(CENTURY_MS - 1)
        taking = TakeOverIfLapsed(subject.record_id, claiming.token, token(), CENTURY_MS, CENTURY_MS)
        assert not subject.do(taking)
        subject.clock.advance(1)
        assert subject.do(taking)

    def test_renewal_may_shorten(self, subject: Subject) -> None:
        """A renewal counts from now, also when what it ends is longer than what it begins."""
        claim = subject.claim()
        assert subject.do(RenewIfHeld(claim, 0, 0))
        record = subject.record()
        assert record is not None
        assert record.lease_until_ms == record.forget_at_ms == subject.clock()
        assert subject.do(MarkUnknownIfLapsed(subject.record_id, claim.token, KEEP_MS))

    def test_lifetime_of_nothing(self, subject: Subject) -> None:
        """A response that is over when it is there can be expired at once, and its tombstone stays for its time."""
        claim = subject.claim()
        assert subject.do(CompleteIfHeld(claim, b"over", 0, KEEP_MS))
        assert subject.do(Purge()) == Purged(expired=1, forgotten=0, more=False)
        assert subject.state() is State.EXPIRED
        assert not subject.do(ForgetIfOver(subject.record_id, claim.token))

    def test_lifetime_of_a_century(self, subject: Subject) -> None:
        """A response may be kept for a century, and then to the millisecond."""
        claim = subject.claim()
        assert subject.do(CompleteIfHeld(claim, b"kept", CENTURY_MS, CENTURY_MS))
        subject.clock.advance(CENTURY_MS - 1)
        assert subject.do(Purge()) == Purged(0, 0, more=False)
        subject.clock.advance(1)
        assert subject.do(Purge()) == Purged(expired=1, forgotten=0, more=False)

    @pytest.mark.parametrize("event", [Event.RELEASE, Event.GIVE_UP])
    def test_kept_for_nothing(self, subject: Subject, event: Event) -> None:
        """What is kept for 0 ms is there until it is forgotten, which may be at once."""
        claim = subject.claim()
        settle = ReleaseIfHeld(claim, 0) if event is Event.RELEASE else MarkUnknownIfHeld(claim, 0)
        assert subject.do(settle)
        assert subject.state() is not None
        assert subject.do(ForgetIfOver(subject.record_id, claim.token))
        assert subject.record() is None

    def test_many_attempts(self, subject: Subject) -> None:
        """However many attempts a record has seen, the next one has the next number."""
        seen = subject.do(ClaimIfAbsent(subject.record_id, token(), FINGERPRINT, 0, KEEP_MS)).record.token
        for _ in range(ATTEMPTS - 1):
            taking = TakeOverIfLapsed(subject.record_id, seen, token(), 0, KEEP_MS)
            assert subject.do(taking)
            seen = taking.token
        record = subject.record()
        assert record is not None
        assert record.attempt == ATTEMPTS
        assert record.token == seen

    def test_purge_of_everything_at_once(self, subject: Subject) -> None:
        """A purge may be allowed more than there is."""
        for _ in range(3):
            claim = subject.claim_another()
            assert subject.do(transition_of(Event.COMPLETE, claim, None))
        subject.clock.advance(LIFETIME_MS)
        assert subject.do(Purge(batch_max=1_000_000)) == Purged(expired=3, forgotten=0, more=False)
