"""The promise of `stores.contract` as a property: any sequence of transitions, on any store, ends as the table says.

One line in a test module runs it:

    TestMyMachine = store_machine(lambda clock, folder: MyStore(folder / "records", clock=clock))

Given several stores, it also compares every answer and every record of theirs with one another.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from retrysafe.model import Claim, Found, State
from retrysafe.protocol.effects import Transition
from retrysafe.protocol.states import GUARDS, TABLE, Event, Guard
from retrysafe.protocol.transitions import (
    AddHistory,
    ClaimIfAbsent,
    KeepJournalIfHeld,
    ListAbandoned,
    ListRecords,
    Purge,
    Purged,
    Read,
    ReadDetails,
)
from retrysafe.stores.contract import Store
from retrysafe.testing.clock import ManualClock
from retrysafe.testing.subject import (
    COLOURS,
    KEEP_MS,
    LEASE_MS,
    LIFETIME_MS,
    OWNERS,
    RESEALED,
    RESPONSE,
    MakeStore,
    token,
    transition_of,
)

RECORDS = 2
BATCHES_MAX = 100

_NUMBERS = st.integers(0, RECORDS - 1)
_EVENTS = [event for event in Event if event is not Event.EXPIRE]  # which only a purge brings about


@dataclass(frozen=True)
class Known:
    """All that the table needs to know about a record; `state` is None if there is none."""

    state: State | None = None
    token: bytes = b""
    attempt: int = 0
    lapses_ms: int = 0
    expires_ms: int = 0
    forget_ms: int = 0
    resealed: bool = False
    request: bytes | None = None
    journal: bytes | None = None

    def after(self, transition: Transition[Any], event: Event, seen: bytes, now_ms: int) -> Known:
        """What an event makes of it: the table, its guards, and the dates that they ask about. Itself if refused."""
        guard = GUARDS[event]
        refused = (self.state, event) not in TABLE or now_ms < self.dates.get(guard, 0)
        refused |= guard is Guard.UNCHANGED and getattr(transition, "seen_state", None) is not self.state
        if refused or (guard is not Guard.ABSENT and seen != self.token):
            return self
        state = TABLE[self.state, event]
        if state is None:
            return Known()
        if isinstance(transition, KeepJournalIfHeld):
            return replace(self, journal=transition.journal)
        if state is State.IN_PROGRESS:
            lapses_ms = now_ms + LEASE_MS
            known = replace(self, state=state, lapses_ms=lapses_ms, forget_ms=lapses_ms + KEEP_MS)
            if event is Event.RENEW:
                return known
            request = getattr(transition, "request", self.request)
            new_token = getattr(transition, "token", b"")
            return replace(known, token=new_token, attempt=self.attempt + 1, request=request)
        if event is Event.RESEAL:  # a second time, the response is another than the one that was seen
            return self if self.resealed else replace(self, resealed=True)
        if state is State.EXPIRED:
            return replace(self, state=state)
        if state is State.COMPLETED:
            expires_ms = now_ms + LIFETIME_MS
            known = replace(self, state=state, expires_ms=expires_ms, forget_ms=expires_ms + KEEP_MS)
            return replace(known, request=None, journal=None)
        return replace(self, state=state, forget_ms=now_ms + KEEP_MS)

    @property
    def dates(self) -> dict[Guard, int]:
        """When each guard that is about time begins to hold."""
        return {
            Guard.LAPSED: self.lapses_ms,
            Guard.LIFETIME_OVER: self.expires_ms,
            Guard.FORGETTABLE: self.forget_ms,
        }

    def purged(self, now_ms: int) -> Known:
        """What purging makes of it, when nothing more is due."""
        if self.state is not None and self.forget_ms <= now_ms:
            return Known()
        return self.after(Purge(), Event.EXPIRE, self.token, now_ms)


class StoreMachine(RuleBasedStateMachine):
    """Stores, and what is known about their records."""

    makes: tuple[MakeStore, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.known = {secrets.token_bytes(32): Known() for _ in range(RECORDS)}
        self.histories: dict[bytes, list[tuple[int, bytes]]] = {record_id: [] for record_id in self.known}
        self.stores: list[Store] = []
        self._ends = ExitStack()

    @initialize(colour=st.sampled_from(sorted(COLOURS)))
    def open(self, colour: str) -> None:
        """Every store starts empty, on the same clock."""
        self.colour = COLOURS[colour]()
        self._ends.callback(self.colour.close)
        for make in self.makes:
            store = make(self.clock, Path(self._ends.enter_context(tempfile.TemporaryDirectory())))
            self._ends.callback(store.close)
            store.open()
            self.stores.append(store)

    def teardown(self) -> None:
        """Let go of the stores."""
        self._ends.close()

    def do(self, transition: Transition[Any]) -> Any:
        """The answer to a transition, on which all stores agree."""
        answers = [self.colour.do(store, transition) for store in self.stores]
        assert answers == [answers[0]] * len(answers)
        return answers[0]

    @rule(number=_NUMBERS, besides_ms=st.integers(-1, 1), data=st.data())
    def move(self, number: int, besides_ms: int, data: st.DataObject) -> None:
        """Something that the table has for this state is tried, with the token, about when it first may be."""
        record_id, known = self._record(number)
        events = [event for state, event in TABLE if state is known.state and event in _EVENTS]
        if events:
            event = data.draw(st.sampled_from(events))
            self._come_to(known.dates.get(GUARDS[event], 0) + besides_ms)
            self._happen(record_id, event, known.token or token(), known.state)

    @rule(
        number=_NUMBERS, event=st.sampled_from(_EVENTS), stale=st.booleans(), seen_state=st.sampled_from([None, *State])
    )
    def trespass(self, number: int, event: Event, seen_state: State | None, *, stale: bool) -> None:
        """Anything is tried, by whoever knows the token, or another one, and has seen the record in some state."""
        record_id, known = self._record(number)
        self._happen(record_id, event, token() if stale else known.token or token(), seen_state)

    def _happen(self, record_id: bytes, event: Event, seen: bytes, seen_state: State | None) -> None:
        known = self.known[record_id]
        transition = transition_of(event, Claim(record_id, seen, known.attempt), seen_state)
        expected = known.after(transition, event, seen, self.clock())
        answer = self.do(transition)
        if isinstance(transition, ClaimIfAbsent):
            assert isinstance(answer, Found)
            assert answer.record.token == expected.token
        else:
            assert answer is (expected is not known)
        self.known[record_id] = expected

    @rule(number=_NUMBERS, event=st.sampled_from(OWNERS))
    def insist(self, number: int, event: Event) -> None:
        """The last owner does something, whatever has become of its record."""
        record_id, known = self._record(number)
        self._happen(record_id, event, known.token or token(), known.state)

    @rule(number=_NUMBERS, seen_state=st.sampled_from(State))
    def erase(self, number: int, seen_state: State) -> None:
        """Somebody who knows the token forgets the record by hand, and has seen it in some state."""
        record_id, known = self._record(number)
        self._happen(record_id, Event.ERASE, known.token or token(), seen_state)

    @rule(number=_NUMBERS, journal=st.binary(max_size=3))
    def keep_journal(self, number: int, journal: bytes) -> None:
        """An owner keeps the journal of its steps."""
        record_id, known = self._record(number)
        held = known.state is State.IN_PROGRESS
        assert self.do(KeepJournalIfHeld(Claim(record_id, known.token or token(), 1), journal)) is held
        if held:
            self.known[record_id] = replace(known, journal=journal)

    @rule(number=_NUMBERS, entry=st.binary(max_size=3), keep_ms=st.integers(0, 2 * LEASE_MS))
    def add_history(self, number: int, entry: bytes, keep_ms: int) -> None:
        """Something is noted, whether there is a record or not."""
        record_id, _ = self._record(number)
        assert self.do(AddHistory(record_id, entry, keep_ms)) is True
        self.histories[record_id].append((self.clock() + keep_ms, entry))

    @rule(number=_NUMBERS, states=st.sets(st.sampled_from(State), min_size=1), batch_max=st.integers(1, RECORDS + 1))
    def look(self, number: int, states: set[State], batch_max: int) -> None:
        """Everything that is kept of a record is as it should be, the same in every store; and so is every list."""
        self._look_at(number)
        self._look_at_lists(states, batch_max)

    def _look_at(self, number: int) -> None:
        record_id, known = self._record(number)
        details = self.do(ReadDetails(record_id))
        assert (details.found and details.found.record.token) == (known.token or None)
        assert (details.request, details.journal) == (known.request, known.journal)
        kept = [entry for forget_ms, entry in self.histories[record_id] if forget_ms > self.clock()]
        assert details.history == tuple(kept)

    def _look_at_lists(self, states: set[State], batch_max: int) -> None:
        now_ms = self.clock()
        standing = {record_id for record_id, known in self.known.items() if known.state in states}
        abandoned = {
            record_id
            for record_id, known in self.known.items()
            if known.state is State.IN_PROGRESS and known.request is not None and known.lapses_ms <= now_ms
        }
        for store in self.stores:  # in which order they come is the store's own business
            assert self._listed(store, ListRecords(tuple(states), batch_max=batch_max)) == standing
            assert self._listed(store, ListAbandoned(batch_max=batch_max)) == abandoned

    def _listed(self, store: Store, wish: ListRecords | ListAbandoned) -> set[bytes]:
        listed: set[bytes] = set()
        for _ in range(BATCHES_MAX):
            page = self.colour.do(store, wish)
            listed.update(one.record_id for one in page.records)
            if page.next_after is None:
                return listed
            wish = replace(wish, after=page.next_after)
        raise AssertionError("the pages have no end")

    @rule(number=_NUMBERS)
    def claim_again(self, number: int) -> None:
        """A claim whose answer was lost is repeated."""
        record_id, known = self._record(number)
        if known.state is not None:
            found = self.do(ClaimIfAbsent(record_id, known.token, b"", LEASE_MS, KEEP_MS))
            assert (found.record.state, found.record.token) == (known.state, known.token)

    @rule(ms=st.integers(1, LEASE_MS))
    def go_on(self, ms: int) -> None:
        """A little time passes."""
        self.clock.advance(ms)

    @rule(
        number=_NUMBERS, guard=st.sampled_from([Guard.LIFETIME_OVER, Guard.FORGETTABLE]), besides_ms=st.integers(-1, 1)
    )
    def purge(self, number: int, guard: Guard, besides_ms: int) -> None:
        """What is due is purged, one by one, about when it first may be."""
        _, known = self._record(number)
        self._come_to(known.dates[guard] + besides_ms)
        expected = {record_id: known.purged(self.clock()) for record_id, known in self.known.items()}
        changes = [(self.known[record_id].state, known.state) for record_id, known in expected.items()]
        expired = changes.count((State.COMPLETED, State.EXPIRED))
        forgotten = _count(before and not after for before, after in changes)
        for store in self.stores:  # which comes first is the store's own business
            assert self._purge(store) == Purged(expired, forgotten, more=False)
        self.known = expected

    @invariant()
    def all_is_as_known(self) -> None:
        """Every record stands as the table says, the same in every store."""
        if not self.stores:
            return
        for record_id, known in self.known.items():
            found = self.do(Read(record_id))
            if found is None:
                assert known.state is None
            else:
                record = found.record
                assert (record.state, record.token, record.attempt) == (known.state, known.token, known.attempt)
                assert record.forget_at_ms == known.forget_ms
                assert record.expires_at_ms == (known.expires_ms or None)
                response = RESEALED if known.resealed else RESPONSE
                assert record.response == (response if known.state is State.COMPLETED else None)
                assert (record.settled_at_ms is None) == (known.state is State.IN_PROGRESS)

    def _purge(self, store: Store) -> Purged:
        """All batches of a purge together."""
        expired = forgotten = 0
        for _ in range(BATCHES_MAX):
            batch = self.colour.do(store, Purge(batch_max=1))
            expired, forgotten = expired + batch.expired, forgotten + batch.forgotten
            if not batch.more:
                break
        return Purged(expired, forgotten, batch.more)

    def _come_to(self, date_ms: int) -> None:
        self.clock.advance(max(0, date_ms - self.clock()))

    def _record(self, number: int) -> tuple[bytes, Known]:
        return list(self.known.items())[number]


def store_machine(*makes: MakeStore) -> Any:
    """The property for stores that are to agree, as a test case, to be given a name that starts with `Test`.

    Args:
        makes: make one store each, from a clock and a folder that is its own.
    """
    machine: Any = type("StoreMachine", (StoreMachine,), {"makes": makes})
    return machine.TestCase


def _count(facts: Iterable[object]) -> int:
    return sum(map(bool, facts))
