"""Cases about what is kept beside a record: its request, the journal of its steps, and its history."""

from __future__ import annotations

import secrets

import pytest

from retrysafe.errors import CallerError
from retrysafe.model import Claim, State
from retrysafe.protocol.states import GUARDS, TABLE, UNFINISHED, Event
from retrysafe.protocol.transitions import (
    HISTORY_ENTRY_BYTES_MAX,
    AddHistory,
    Details,
    KeepJournalIfHeld,
    Purge,
    Purged,
    ReadDetails,
)
from retrysafe.testing.subject import JOURNAL, KEEP_MS, LEASE_MS, REQUEST, WAIT_MS, Cases, Subject, token

SIZES = [0, 1, 70_000, (1 << 20) + 1]

MOVES = [(before, event) for before, event in TABLE if before in UNFINISHED]
PURGES_MAX = 10


class Extras(Cases):
    """What a later attempt goes on from: the request and the journal."""

    def _kept(self, subject: Subject) -> tuple[bytes | None, bytes | None]:
        details = subject.details()
        return details.request, details.journal

    def _lead_with_extras(self, subject: Subject, state: State) -> Claim:
        """A record in that state, with a request and a journal."""
        claim = subject.claim(REQUEST)
        assert subject.happen(Event.JOURNAL, claim)
        return subject.lead(claim, state)

    def test_details_of_nothing(self, subject: Subject) -> None:
        """Where there is no record, nothing is kept."""
        assert subject.details() == Details(None, None, None, ())

    def test_details_have_the_record(self, subject: Subject) -> None:
        """The record is the one that a read finds, at the same time."""
        self._lead_with_extras(subject, State.COMPLETED)
        subject.clock.advance(3)
        assert subject.details().found == subject.found()

    @pytest.mark.parametrize("size_bytes", SIZES)
    def test_request_is_kept_to_the_byte(self, subject: Subject, size_bytes: int) -> None:
        """A request comes back as it was, however long it is, and the record is as without it."""
        request = secrets.token_bytes(size_bytes)
        claiming = subject.claiming(request=request)
        found = subject.do(claiming)
        assert found.record.token == claiming.token
        assert subject.details() == Details(found, request, None, ())
        assert subject.found() == found

    @pytest.mark.parametrize("size_bytes", SIZES)
    def test_journal_is_kept_to_the_byte(self, subject: Subject, size_bytes: int) -> None:
        """A journal comes back as it was, however long it is, and changes nothing of the record."""
        claim = subject.claim()
        before = subject.found()
        journal = secrets.token_bytes(size_bytes)
        assert subject.do(KeepJournalIfHeld(claim, journal))
        assert subject.details() == Details(before, None, journal, ())

    def test_request_of_the_first_claim_stays(self, subject: Subject) -> None:
        """A claim that finds a record keeps no request of its own, and leaves the one that is there."""
        subject.claim(REQUEST)
        for other in (None, b"another request"):
            subject.do(subject.claiming(request=other))
            assert self._kept(subject) == (REQUEST, None)

    def test_request_that_was_not_kept_is_not_kept_later(self, subject: Subject) -> None:
        """Where the first claim brought no request, no later one adds it."""
        subject.claim()
        subject.do(subject.claiming(request=REQUEST))
        assert self._kept(subject) == (None, None)

    def test_journal_is_replaced_as_a_whole(self, subject: Subject) -> None:
        """Of several journals the last one is kept, and nothing of those before it."""
        claim = subject.claim()
        for size_bytes in (30_000, 100, 20_000, 0, 7):
            journal = secrets.token_bytes(size_bytes)
            assert subject.do(KeepJournalIfHeld(claim, journal))
            assert self._kept(subject) == (None, journal)

    def test_journal_of_another_is_not_kept(self, subject: Subject) -> None:
        """Whoever does not hold the record, or no longer, leaves the journal as it is."""
        first = self._lead_with_extras(subject, State.IN_PROGRESS)
        assert not subject.do(KeepJournalIfHeld(Claim(subject.record_id, token(), 1), b"a stranger's"))
        subject.clock.advance(LEASE_MS)
        assert subject.happen(Event.TAKE_OVER, first)
        assert not subject.do(KeepJournalIfHeld(first, b"of whoever was taken over from"))
        assert self._kept(subject) == (REQUEST, JOURNAL)

    @pytest.mark.parametrize("state", [State.RETRYABLE, State.UNKNOWN])
    def test_journal_is_of_what_is_in_progress(self, subject: Subject, state: State) -> None:
        """The owner itself does not change the journal once its attempt is over."""
        claim = self._lead_with_extras(subject, state)
        assert not subject.do(KeepJournalIfHeld(claim, b"late"))
        assert self._kept(subject) == (REQUEST, JOURNAL)

    def test_next_attempt_goes_on(self, subject: Subject) -> None:
        """Whoever claims a retryable record finds request and journal, and keeps its own journal in their place."""
        claim = self._lead_with_extras(subject, State.RETRYABLE)
        assert subject.happen(Event.RECLAIM, claim)
        assert self._kept(subject) == (REQUEST, JOURNAL)
        record = subject.record()
        assert record is not None
        assert subject.do(KeepJournalIfHeld(Claim(subject.record_id, record.token, 2), b"of the second"))
        assert self._kept(subject) == (REQUEST, b"of the second")

    @pytest.mark.parametrize(("state", "event"), MOVES)
    def test_kept_until_it_is_finished(self, subject: Subject, state: State, event: Event) -> None:
        """Through every move both stay, until the record is completed or deleted; from there on neither is there."""
        claim = self._lead_with_extras(subject, state)
        subject.clock.advance(WAIT_MS[GUARDS[event]])
        assert subject.happen(event, claim)
        after = TABLE[state, event]
        assert self._kept(subject) == ((REQUEST, JOURNAL) if after in UNFINISHED else (None, None))
        if after is None:
            subject.claim()
            assert self._kept(subject) == (None, None)

    @pytest.mark.parametrize("state", [State.IN_PROGRESS, State.RETRYABLE, State.UNKNOWN])
    def test_purged_with_the_record(self, subject: Subject, state: State) -> None:
        """What a purge forgets leaves nothing behind; until then both are there, however long that is."""
        self._lead_with_extras(subject, state)
        subject.clock.advance(KEEP_MS - 1)
        subject.do(Purge())
        assert self._kept(subject) == (REQUEST, JOURNAL)
        subject.clock.advance(LEASE_MS + 1)
        while subject.do(Purge()).more:
            assert self._kept(subject) == (REQUEST, JOURNAL)
        assert subject.details() == Details(None, None, None, ())
        subject.claim()
        assert self._kept(subject) == (None, None)


class History(Cases):
    """What was added to the history of a record id."""

    def _note(self, subject: Subject, entry: bytes, keep_ms: int = KEEP_MS, record_id: bytes | None = None) -> None:
        assert subject.do(AddHistory(record_id or subject.record_id, entry, keep_ms)) is True

    def _history(self, subject: Subject) -> tuple[bytes, ...]:
        return subject.details().history

    def test_history_is_in_order(self, subject: Subject) -> None:
        """Entries come back byte for byte, in the order in which they were added, also those of the same moment."""
        subject.claim()
        entries = [b"", b"\0\xff\n", secrets.token_bytes(HISTORY_ENTRY_BYTES_MAX), b"the same", b"the same", b"last"]
        for number, entry in enumerate(entries):
            self._note(subject, entry)
            subject.clock.advance(number % 2)
        assert self._history(subject) == tuple(entries)

    def test_history_is_of_one_id(self, subject: Subject) -> None:
        """What is added for one record id is in no other's history, and is nothing of the record."""
        other = subject.claim_another()
        subject.claim()
        before = subject.found()
        self._note(subject, b"of the one")
        self._note(subject, b"of the other", record_id=other.record_id)
        assert subject.details() == Details(before, None, None, (b"of the one",))
        assert subject.do(ReadDetails(other.record_id)).history == (b"of the other",)

    @pytest.mark.parametrize("event", [event for state, event in TABLE if state is State.UNKNOWN])
    def test_history_outlives_the_record(self, subject: Subject, event: Event) -> None:
        """A history is there before its record, through whatever becomes of that, and after it."""
        self._note(subject, b"before", 100 * KEEP_MS)
        claim = subject.bring_to(State.UNKNOWN)
        self._note(subject, b"while", 100 * KEEP_MS)
        subject.clock.advance(WAIT_MS[GUARDS[event]])
        assert subject.happen(event, claim)
        self._note(subject, b"after", 100 * KEEP_MS)
        assert self._history(subject) == (b"before", b"while", b"after")
        subject.clock.advance(2 * KEEP_MS)
        while subject.do(Purge()).more:
            pass
        assert self._history(subject) == (b"before", b"while", b"after")

    def test_entry_is_kept_to_the_millisecond(self, subject: Subject) -> None:
        """Each entry is there for its own time, and no longer, whether somebody purges or not."""
        self._note(subject, b"long", 2 * KEEP_MS)
        self._note(subject, b"short", KEEP_MS)
        subject.clock.advance(KEEP_MS - 1)
        subject.do(Purge())
        assert self._history(subject) == (b"long", b"short")
        subject.clock.advance(1)
        assert self._history(subject) == (b"long",)
        subject.clock.advance(KEEP_MS - 1)
        subject.do(Purge())
        assert self._history(subject) == (b"long",)
        subject.clock.advance(1)
        assert self._history(subject) == ()

    def test_history_is_purged_in_batches(self, subject: Subject) -> None:
        """What is over goes, a few at a time, and is no record that was forgotten; what is not over stays."""
        for _ in range(5):
            self._note(subject, b"over", KEEP_MS, secrets.token_bytes(32))
        self._note(subject, b"over as well", KEEP_MS)
        self._note(subject, b"not yet", KEEP_MS + 1)
        subject.clock.advance(KEEP_MS)
        for _ in range(PURGES_MAX):
            purged = subject.do(Purge(batch_max=2))
            assert (purged.expired, purged.forgotten) == (0, 0)
            if not purged.more:
                break
        assert subject.do(Purge()) == Purged(0, 0, more=False)
        assert self._history(subject) == (b"not yet",)

    def test_no_addition_is_lost_in_a_race(self, subject: Subject) -> None:
        """What many add at the same moment is there, in some order."""
        entries = [b"by %d" % number for number in range(16)]
        answers = subject.race([AddHistory(subject.record_id, entry, KEEP_MS) for entry in entries])
        assert answers == [True] * len(entries)
        assert sorted(self._history(subject)) == sorted(entries)

    def test_entry_that_is_too_long_is_refused(self, subject: Subject) -> None:
        """It comes to no store: whoever writes it hears how long it may be."""
        with pytest.raises(CallerError, match=str(HISTORY_ENTRY_BYTES_MAX)):
            AddHistory(subject.record_id, bytes(HISTORY_ENTRY_BYTES_MAX + 1), KEEP_MS)
        assert self._history(subject) == ()
