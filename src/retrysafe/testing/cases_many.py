"""Cases about many records at once: stored responses in pages, and what there is of each route."""

from __future__ import annotations

import secrets

import pytest

from retrysafe.model import Claim, State
from retrysafe.protocol.states import Event
from retrysafe.protocol.transitions import (
    ANSWER_DAYS_KEPT,
    DAY_MS,
    STORED_HEAD_BYTES,
    AnswerCount,
    ClaimIfAbsent,
    CompleteIfHeld,
    CountAnswers,
    ListResponses,
    Purge,
    Read,
    RecordCount,
    ReplaceResponseIfSame,
    TakeStats,
)
from retrysafe.testing.subject import FINGERPRINT, KEEP_MS, LEASE_MS, LIFETIME_MS, RESPONSE, Cases, Subject, token

PAGES_MAX = 20
ROUTES = ("*", "POST /orders/{id}", "PUT /Straße")


class Responses(Cases):
    """Stored responses: found in pages, and exchanged for other bytes."""

    def _listed(self, subject: Subject, batch_max: int) -> dict[bytes, bytes]:
        """The head of every stored response, by record id, through all pages."""
        page = subject.do(ListResponses(batch_max=batch_max))
        heads = {stored.record_id: stored.head for stored in page.responses}
        for _ in range(PAGES_MAX):
            if page.next_after is None:
                return heads
            page = subject.do(ListResponses(page.next_after, batch_max))
            heads |= {stored.record_id: stored.head for stored in page.responses}
        raise AssertionError("the pages have no end")

    def test_every_response_is_on_a_page(self, subject: Subject) -> None:
        """Of records in every state, those that keep a response are listed, with its beginning; and no others."""
        assert self._listed(subject, 2) == {}
        responses = {}
        for size_bytes in (1, STORED_HEAD_BYTES, STORED_HEAD_BYTES + 1, 5_000):
            claim, response = subject.claim_another(), secrets.token_bytes(size_bytes)
            assert subject.do(CompleteIfHeld(claim, response, LIFETIME_MS, KEEP_MS))
            responses[claim.record_id] = response[:STORED_HEAD_BYTES]
        for event in (Event.RENEW, Event.RELEASE, Event.GIVE_UP):
            assert subject.happen(event, subject.claim_another())
        for batch_max in (1, 2, 4, 200):
            assert self._listed(subject, batch_max) == responses
        subject.clock.advance(LIFETIME_MS)
        subject.do(Purge())
        assert self._listed(subject, 200) == {}

    def test_response_is_exchanged_and_nothing_else(self, subject: Subject) -> None:
        """Other bytes for the same response: every date and the token stay."""
        claim = subject.bring_to(State.COMPLETED)
        before = subject.record()
        assert before is not None
        subject.clock.advance(11)
        assert subject.do(ReplaceResponseIfSame(subject.record_id, claim.token, RESPONSE, b"other bytes"))
        after = subject.record()
        assert after is not None
        assert after.response == b"other bytes"
        for name in ("state", "token", "attempt", "settled_at_ms", "expires_at_ms", "forget_at_ms", "claimed_at_ms"):
            assert getattr(after, name) == getattr(before, name)

    def test_response_that_is_another_is_left(self, subject: Subject) -> None:
        """Whoever saw other bytes is too late: of two that exchange at once, one does."""
        claim = subject.bring_to(State.COMPLETED)
        racers = [
            ReplaceResponseIfSame(subject.record_id, claim.token, RESPONSE, b"by %d" % number) for number in range(8)
        ]
        answers = subject.race(racers)
        assert sorted(answers) == [False] * 7 + [True]
        record = subject.record()
        assert record is not None
        assert record.response == racers[answers.index(True)].response


class Answers(Cases):
    """First answers and replays, counted by route and day."""

    def _counts(self, subject: Subject, days: int = 7) -> dict[str, tuple[int, int]]:
        return {count.route: (count.recorded, count.replayed) for count in subject.do(TakeStats(days)).answers}

    def test_counts_add_up(self, subject: Subject) -> None:
        """What several processes count in their batches adds up, for each route."""
        assert self._counts(subject) == {}
        assert subject.do(CountAnswers((AnswerCount("*", 3, 1), AnswerCount(ROUTES[1], 0, 2))))
        assert subject.do(CountAnswers((AnswerCount("*", 1, 10),)))
        assert self._counts(subject) == {"*": (4, 11), ROUTES[1]: (0, 2)}

    def test_no_count_is_lost_in_a_race(self, subject: Subject) -> None:
        """Batches that are written at the same moment all count."""
        subject.race([CountAnswers((AnswerCount("*", 1, 2),)) for _ in range(16)])
        assert self._counts(subject) == {"*": (16, 32)}

    def test_days_pass(self, subject: Subject) -> None:
        """Answers are those of today and as many days before as are asked for; old days are forgotten."""
        subject.clock.advance(DAY_MS - subject.clock() % DAY_MS)  # the first moment of a day
        subject.do(CountAnswers((AnswerCount("*", 1, 0),)))
        subject.clock.advance(DAY_MS - 1)
        assert self._counts(subject, days=1) == {"*": (1, 0)}
        subject.clock.advance(1)
        assert self._counts(subject, days=1) == {}
        assert self._counts(subject, days=2) == {"*": (1, 0)}
        subject.clock.advance((ANSWER_DAYS_KEPT - 2) * DAY_MS)
        subject.do(CountAnswers((AnswerCount("*", 10, 0),)))
        assert self._counts(subject, days=ANSWER_DAYS_KEPT) == {"*": (11, 0)}
        subject.clock.advance(DAY_MS)
        subject.do(CountAnswers((AnswerCount("*", 100, 0),)))
        assert self._counts(subject, days=ANSWER_DAYS_KEPT + 9) == {"*": (110, 0)}


class Census(Cases):
    """What there is, by route and state."""

    def _claim(self, subject: Subject, route: str) -> Claim:
        claim = Claim(secrets.token_bytes(32), token(), 1)
        subject.do(ClaimIfAbsent(claim.record_id, claim.token, FINGERPRINT, LEASE_MS, KEEP_MS, route))
        return claim

    @pytest.mark.parametrize("route", [*ROUTES, "", "POST /" + 249 * "x"])
    def test_route_is_kept(self, subject: Subject, route: str) -> None:
        """A record has the route that it was claimed under first, whoever claims it later."""
        claim = self._claim(subject, route)
        again = ClaimIfAbsent(claim.record_id, token(), FINGERPRINT, LEASE_MS, KEEP_MS, "POST /another")
        assert subject.do(again).record.route == route
        assert subject.happen(Event.RELEASE, claim)
        assert subject.happen(Event.RECLAIM, claim)
        found = subject.do(Read(claim.record_id))
        assert found is not None
        assert found.record.route == route

    def test_records_are_counted(self, subject: Subject) -> None:
        """How many, how large, and how old the oldest is, for each route and state."""
        assert subject.do(TakeStats()).records == ()
        began_ms = subject.clock()
        for route in ROUTES[:2]:
            for event in (Event.RENEW, Event.COMPLETE, Event.COMPLETE, Event.GIVE_UP):
                assert subject.happen(event, self._claim(subject, route))
                subject.clock.advance(1)
        stats = subject.do(TakeStats())
        assert stats.now_ms == subject.clock()
        assert stats.records == tuple(
            RecordCount(route, state, number, size_bytes, began_ms + 4 * later + oldest)
            for later, route in enumerate(ROUTES[:2])
            for state, number, size_bytes, oldest in (
                (State.COMPLETED, 2, 2 * len(RESPONSE), 1),
                (State.IN_PROGRESS, 1, 0, 0),
                (State.UNKNOWN, 1, 0, 3),
            )
        )
