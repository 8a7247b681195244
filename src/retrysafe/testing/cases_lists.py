"""Cases about lists of records: those in some states, and those that were abandoned."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest

from retrysafe.model import Claim, Record, State
from retrysafe.protocol.states import Event
from retrysafe.protocol.transitions import (
    ClaimIfAbsent,
    ListAbandoned,
    Listed,
    ListRecords,
    Read,
    RecordsPage,
    RenewIfHeld,
)
from retrysafe.testing.subject import FINGERPRINT, KEEP_MS, LEASE_MS, REQUEST, STEPS, Cases, Subject, token

PAGES_MAX = 60
ROUTES = ("*", "POST /orders/{id}", "PUT /Straße")
EVERY_STATE = tuple(State)


class _Lists(Cases):
    """What cases about lists have in common."""

    def _claim_on(self, subject: Subject, route: str = "*", request: bytes | None = None) -> Claim:
        claim = Claim(secrets.token_bytes(32), token(), 1)
        claiming = ClaimIfAbsent(claim.record_id, claim.token, FINGERPRINT, LEASE_MS, KEEP_MS, route, request)
        assert subject.do(claiming).record.token == claim.token
        return claim

    def _pages(self, subject: Subject, first: ListRecords | ListAbandoned) -> Sequence[RecordsPage]:
        pages = [subject.do(first)]
        while (after := pages[-1].next_after) is not None:
            assert len(pages) < PAGES_MAX, "the pages have no end"
            pages.append(subject.do(replace(first, after=after)))
        return pages

    def _all_listed(self, subject: Subject, first: ListRecords | ListAbandoned) -> dict[bytes, Record]:
        """Every record that is listed, by its id, through all pages."""
        return _records(listed for page in self._pages(subject, first) for listed in page.records)

    def _known(self, subject: Subject, claims: Sequence[Claim]) -> dict[bytes, Record]:
        """What a read says of them; in a list, the response is left out."""
        found = {claim.record_id: subject.do(Read(claim.record_id)) for claim in claims}
        return {record_id: replace(one.record, response=None) for record_id, one in found.items() if one}


class Lists(_Lists):
    """Records in some states, found in pages."""

    def _fill_with_records(self, subject: Subject) -> dict[tuple[State, str], Claim]:
        """A record for each state that an owner brings about, and each route."""
        claims = {}
        for state in (State.IN_PROGRESS, State.COMPLETED, State.RETRYABLE, State.UNKNOWN):
            for route in ROUTES:
                claims[state, route] = claim = self._claim_on(subject, route)
                for event in STEPS[state]:
                    assert subject.happen(event, claim)
        return claims

    def test_empty(self, subject: Subject) -> None:
        """Where there is no record, the first page is the last, and says what time it is."""
        subject.clock.advance(3)
        (*_, last) = self._pages(subject, ListRecords(EVERY_STATE))
        assert (last.records, last.now_ms) == ((), subject.clock())

    def test_records_are_listed_by_state_and_route(self, subject: Subject) -> None:
        """Just those in these states, and of this route if one is named, each as it stands but for its response."""
        claims = self._fill_with_records(subject)
        for states in ((State.UNKNOWN,), (State.COMPLETED, State.IN_PROGRESS), EVERY_STATE, (State.EXPIRED,)):
            for route in (None, *ROUTES, "POST /another", "POST /ORDERS/{id}"):
                wanted = [claim for (state, its), claim in claims.items() if state in states and route in (None, its)]
                assert self._all_listed(subject, ListRecords(states, route)) == self._known(subject, wanted)

    @pytest.mark.parametrize("batch_max", [1, 2, 4, 200])
    def test_every_record_is_on_a_page(self, subject: Subject, batch_max: int) -> None:
        """However many fit on a page, all are on some page, and each page knows the time."""
        claims = self._fill_with_records(subject)
        pages = self._pages(subject, ListRecords(EVERY_STATE, batch_max=batch_max))
        assert {page.now_ms for page in pages} == {subject.clock()}
        assert _records(listed for page in pages for listed in page.records) == self._known(subject, [*claims.values()])

    def test_pages_are_whole_while_others_write(self, subject: Subject) -> None:
        """What stands from the first page to the last is on one, whatever is claimed, moved and deleted meanwhile."""
        claims = {claim.record_id: claim for claim in (self._claim_on(subject) for _ in range(12))}
        expected = self._known(subject, list(claims.values()))
        wish = ListRecords((State.IN_PROGRESS,), batch_max=2)
        listed: dict[bytes, Record] = {}
        for number in range(PAGES_MAX):
            page = subject.do(wish)
            listed |= _records(page.records)
            if page.next_after is None:
                break
            wish = replace(wish, after=page.next_after)
            self._claim_on(subject)
            seen = next((claims.pop(one.record_id) for one in page.records if one.record_id in claims), None)
            if seen is not None:
                assert subject.happen(Event.DISCARD if number % 2 else Event.COMPLETE, seen)
        assert page.next_after is None, "the pages have no end"
        assert {record_id: record for record_id, record in listed.items() if record_id in expected} == expected


class Abandoned(_Lists):
    """Records that somebody may have to run again."""

    def test_only_what_was_abandoned(self, subject: Subject) -> None:
        """Of records in every state, only those in progress whose lease has lapsed and whose request was kept."""
        abandoned = [self._claim_on(subject, request=REQUEST) for _ in range(3)]
        self._claim_on(subject)  # whose request was not kept
        for state in (State.COMPLETED, State.RETRYABLE, State.UNKNOWN):
            claim = self._claim_on(subject, request=REQUEST)
            for event in STEPS[state]:
                assert subject.happen(event, claim)
        renewed = self._claim_on(subject, request=REQUEST)
        assert subject.do(RenewIfHeld(renewed, 2 * LEASE_MS, KEEP_MS))
        subject.clock.advance(LEASE_MS)
        assert self._all_listed(subject, ListAbandoned()) == self._known(subject, abandoned)

    def test_abandoned_to_the_millisecond(self, subject: Subject) -> None:
        """It is listed when its lease has lapsed, and not before; once somebody took it over, no longer."""
        claim = self._claim_on(subject, request=REQUEST)
        subject.clock.advance(LEASE_MS - 1)
        assert self._all_listed(subject, ListAbandoned()) == {}
        subject.clock.advance(1)
        assert set(self._all_listed(subject, ListAbandoned())) == {claim.record_id}
        assert subject.happen(Event.TAKE_OVER, claim)
        assert self._all_listed(subject, ListAbandoned()) == {}
        subject.clock.advance(LEASE_MS)
        assert set(self._all_listed(subject, ListAbandoned())) == {claim.record_id}

    @pytest.mark.parametrize("batch_max", [1, 2, 3, 200])
    def test_every_abandoned_record_is_on_a_page(self, subject: Subject, batch_max: int) -> None:
        """All are on some page, also those that were abandoned at the same moment."""
        claims = []
        for number in range(6):
            claims.append(self._claim_on(subject, ROUTES[number % 3], REQUEST))
            subject.clock.advance(number % 2)
        subject.clock.advance(LEASE_MS)
        pages = self._pages(subject, ListAbandoned(batch_max=batch_max))
        assert {page.now_ms for page in pages} == {subject.clock()}
        assert _records(listed for page in pages for listed in page.records) == self._known(subject, claims)

    def test_abandoned_pages_are_whole_while_others_write(self, subject: Subject) -> None:
        """What stands abandoned from the first page to the last is on one, though others are taken over meanwhile."""
        claims = [self._claim_on(subject, request=REQUEST) for _ in range(8)]
        subject.clock.advance(LEASE_MS)
        wish = ListAbandoned(batch_max=2)
        listed: dict[bytes, Record] = {}
        taken = []
        for _ in range(PAGES_MAX):
            page = subject.do(wish)
            listed |= _records(page.records)
            if page.next_after is None:
                break
            wish = replace(wish, after=page.next_after)
            seen = [claim for claim in claims if claim.record_id in listed and claim not in taken]
            if seen:
                taken.append(seen[0])
                assert subject.happen(Event.TAKE_OVER, seen[0])
        assert page.next_after is None, "the pages have no end"
        assert {claim.record_id for claim in claims if claim not in taken} <= set(listed)


def _records(listed: Iterable[Listed]) -> dict[bytes, Record]:
    return {one.record_id: one.record for one in listed}
