"""What the cases of the contract work with: one store, one clock, one record, in one of two colours."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from retrysafe.model import Claim, Found, Record, State
from retrysafe.protocol.effects import Transition
from retrysafe.protocol.states import GUARDS, Event, Guard
from retrysafe.protocol.transitions import (
    ClaimIfAbsent,
    ClaimIfRetryable,
    CompleteIfHeld,
    CompleteIfUnknown,
    Details,
    DiscardIfHeld,
    ForgetIfOver,
    ForgetIfSeen,
    KeepJournalIfHeld,
    MarkUnknownIfHeld,
    MarkUnknownIfLapsed,
    Purge,
    Purged,
    Read,
    ReadDetails,
    ReleaseIfHeld,
    ReleaseIfUnknown,
    RenewIfHeld,
    ReplaceResponseIfSame,
    RevokeIfSeen,
    TakeOverIfLapsed,
)
from retrysafe.stores.clock import Clock
from retrysafe.stores.contract import Store
from retrysafe.testing.clock import ManualClock

T = TypeVar("T")

LEASE_MS = 60_000
LIFETIME_MS = 86_400_000
KEEP_MS = 30 * 86_400_000  # the `forget_after_ms` of every transition
FINGERPRINT = b"\x01" + bytes(32)
RESPONSE = bytes(range(256)) * 2
RESEALED = RESPONSE[::-1]  # the bytes that `RESPONSE` is exchanged for
REQUEST = b"request " + RESPONSE
JOURNAL = b"journal " + RESPONSE

# How long to wait until the guard of an event can hold, whenever before that the record was made.
WAIT_MS = dict.fromkeys(Guard, 0) | {
    Guard.LAPSED: LEASE_MS,
    Guard.LIFETIME_OVER: LIFETIME_MS,
    Guard.FORGETTABLE: LIFETIME_MS + KEEP_MS,
}

# What an owner may do, by its token.
OWNERS = [event for event in Event if GUARDS[event] is Guard.HELD]

# What has the same effect however often it is repeated, and says so.
REPEATABLE = (Event.RENEW, Event.JOURNAL)

# The shortest way from a claim to each state.
STEPS: dict[State, Sequence[Event]] = {
    State.IN_PROGRESS: [],
    State.COMPLETED: [Event.COMPLETE],
    State.RETRYABLE: [Event.RELEASE],
    State.UNKNOWN: [Event.GIVE_UP],
    State.EXPIRED: [Event.COMPLETE, Event.EXPIRE],
}

MakeStore = Callable[[Clock, Path], Store]
"""Makes a store from a clock, in milliseconds, and a folder that is its own. The same folder means the same records."""


class Colour(Protocol):
    """One of the two ways to use a store."""

    def do(self, store: Store, transition: Transition[T]) -> T:
        """One transition, to its answer."""

    def race(self, stores: Sequence[Store], transitions: Sequence[Transition[T]]) -> list[T]:
        """All of them at the same time, dealt out to the stores in turn; their answers in order."""

    def close(self) -> None:
        """Let go of threads and loops."""


class Blocking:
    """Threads."""

    def do(self, store: Store, transition: Transition[T]) -> T:
        """On this thread."""
        return store.perform(transition)

    def race(self, stores: Sequence[Store], transitions: Sequence[Transition[T]]) -> list[T]:
        """On a thread each, started together."""
        together = threading.Barrier(len(transitions))

        def run(store: Store, transition: Transition[T]) -> T:
            together.wait()
            return store.perform(transition)

        with ThreadPoolExecutor(len(transitions)) as pool:
            return list(pool.map(run, cycle(stores), transitions))

    def close(self) -> None:
        """There is nothing to let go of."""


class Asyncio:
    """An event loop."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()

    def do(self, store: Store, transition: Transition[T]) -> T:
        """On the loop."""
        return self.race([store], [transition])[0]

    def race(self, stores: Sequence[Store], transitions: Sequence[Transition[T]]) -> list[T]:
        """In one turn of the loop."""
        dealt = list(zip(cycle(stores), transitions, strict=False))

        async def run() -> list[T]:
            return await asyncio.gather(*(store.submit(transition) for store, transition in dealt))

        return self._runner.run(run())

    def close(self) -> None:
        """Close the loop."""
        self._runner.close()


COLOURS: dict[str, Callable[[], Colour]] = {"blocking": Blocking, "asyncio": Asyncio}


def token() -> bytes:
    """A token as a claimant chooses it."""
    return secrets.token_bytes(16)


class Subject:
    """An open store with a record that a case is about.

    Args:
        make: makes the store.
        folder: for the store alone.
        colour: how the store is used.
    """

    def __init__(self, make: MakeStore, folder: Path, colour: Colour) -> None:
        self._make = make
        self._folder = folder
        self.colour = colour
        self.clock = ManualClock()
        self.record_id = secrets.token_bytes(32)
        self.store = make(self.clock, folder)
        self.store.open()
        self._others: list[Store] = []

    def close(self) -> None:
        """Close every store and the colour."""
        for store in (self.store, *self._others):
            store.close()
        self.colour.close()

    def another_store(self) -> Store:
        """A second store object on the same records, open, beside the first."""
        store = self._make(self.clock, self._folder)
        self._others.append(store)
        store.open()
        return store

    def reopen(self) -> None:
        """Another store object on the same folder, as after a restart."""
        self.store.close()
        self.store = self._make(self.clock, self._folder)
        self.store.open()

    def do(self, transition: Transition[T]) -> T:
        """One transition, to its answer."""
        return self.colour.do(self.store, transition)

    def race(self, transitions: Sequence[Transition[T]], beside: Sequence[Store] = ()) -> list[T]:
        """All of them at the same time, dealt out to the store and to those beside it."""
        return self.colour.race([self.store, *beside], transitions)

    @contextmanager
    def by(self, store: Store) -> Iterator[None]:
        """What is done meanwhile is done by another store object."""
        mine, self.store = self.store, store
        try:
            yield
        finally:
            self.store = mine

    def found(self) -> Found | None:
        """The record as it stands."""
        return self.do(Read(self.record_id))

    def record(self) -> Record | None:
        """The record as it stands, without the time."""
        found = self.found()
        return None if found is None else found.record

    def state(self) -> State | None:
        """The state of the record; None if there is none."""
        record = self.record()
        return None if record is None else record.state

    def details(self) -> Details:
        """Everything that is kept of the record."""
        return self.do(ReadDetails(self.record_id))

    def claiming(self, new_token: bytes | None = None, request: bytes | None = None) -> ClaimIfAbsent:
        """The first claim on the record."""
        return ClaimIfAbsent(self.record_id, new_token or token(), FINGERPRINT, LEASE_MS, KEEP_MS, request=request)

    def claim(self, request: bytes | None = None) -> Claim:
        """Claim the record, which is not there yet."""
        found = self.do(self.claiming(request=request))
        return Claim(self.record_id, found.record.token, found.record.attempt)

    def claim_another(self) -> Claim:
        """Claim a record of which nothing else is known."""
        claim = Claim(secrets.token_bytes(32), token(), 1)
        self.do(ClaimIfAbsent(claim.record_id, claim.token, FINGERPRINT, LEASE_MS, KEEP_MS))
        return claim

    def bring_to(self, state: State | None) -> Claim:
        """Lead the record, which is not there yet, to a state, the shortest way. Its last claim."""
        if state is None:
            return Claim(self.record_id, token(), 1)
        return self.lead(self.claim(), state)

    def lead(self, claim: Claim, state: State) -> Claim:
        """Lead the record, which was just claimed, to a state, the shortest way. Its last claim."""
        for event in STEPS[state]:
            self.clock.advance(WAIT_MS[GUARDS[event]])
            assert self.happen(event, claim)
        assert self.state() is state
        return claim

    def happen(self, event: Event, claim: Claim) -> bool:
        """Let an event happen to the record, as far as the store agrees. Did it?

        Args:
            event: what is to happen.
            claim: the owner's, or the one that whoever acts has seen.
        """
        seen_state = self.state() if event is Event.ERASE else None
        transition = transition_of(event, claim, seen_state)
        return took_effect(transition, self.do(transition))


def took_effect(transition: Transition[Any], answer: Any) -> bool:
    """Whether a transition happened, by its answer; a purge, whether it expired a record."""
    if isinstance(transition, ClaimIfAbsent):
        return bool(answer.record.token == transition.token)
    if isinstance(answer, Purged):
        return answer.expired == 1
    assert isinstance(answer, bool)
    return answer


def transition_of(  # noqa: C901, PLR0912 one return for each event
    event: Event, claim: Claim, seen_state: State | None
) -> Transition[Any]:
    """The transition in which an event happens, with a new token where it takes one.

    Args:
        event: what is to happen.
        claim: the owner's, or the one that whoever acts has seen.
        seen_state: that whoever acts has seen, where it is asked for.
    """
    record_id, seen = claim.record_id, claim.token
    match event:
        case Event.CLAIM:
            return ClaimIfAbsent(record_id, token(), FINGERPRINT, LEASE_MS, KEEP_MS, request=REQUEST)
        case Event.TAKE_OVER:
            return TakeOverIfLapsed(record_id, seen, token(), LEASE_MS, KEEP_MS)
        case Event.RECLAIM:
            return ClaimIfRetryable(record_id, seen, token(), LEASE_MS, KEEP_MS)
        case Event.RENEW:
            return RenewIfHeld(claim, LEASE_MS, KEEP_MS)
        case Event.JOURNAL:
            return KeepJournalIfHeld(claim, JOURNAL)
        case Event.COMPLETE:
            return CompleteIfHeld(claim, RESPONSE, LIFETIME_MS, KEEP_MS)
        case Event.RELEASE:
            return ReleaseIfHeld(claim, KEEP_MS)
        case Event.DISCARD:
            return DiscardIfHeld(claim)
        case Event.GIVE_UP:
            return MarkUnknownIfHeld(claim, KEEP_MS)
        case Event.ABANDON:
            return MarkUnknownIfLapsed(record_id, seen, KEEP_MS)
        case Event.RESOLVE:
            return CompleteIfUnknown(record_id, seen, RESPONSE, LIFETIME_MS, KEEP_MS)
        case Event.RULE_OUT:
            return ReleaseIfUnknown(record_id, seen, KEEP_MS)
        case Event.REVOKE:
            return RevokeIfSeen(record_id, seen, KEEP_MS)
        case Event.ERASE:
            return ForgetIfSeen(record_id, seen, seen_state or State.UNKNOWN)
        case Event.RESEAL:
            return ReplaceResponseIfSame(record_id, seen, RESPONSE, RESEALED)
        case Event.EXPIRE:
            return Purge()
        case Event.FORGET:
            return ForgetIfOver(record_id, seen)


class Cases:
    """A part of the contract. A class derived from it says how its store is made."""

    make: MakeStore

    @pytest.fixture(params=list(COLOURS))
    def subject(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
        """An open store on a manual clock, used in one of the two colours."""
        yield from _used(self.make, tmp_path, request.param)


def subject_in(colours: Sequence[str]) -> Any:
    """The fixture `subject` of cases that are run in these colours."""

    @pytest.fixture(params=list(colours), name="subject")
    def subject(self: Cases, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
        yield from _used(self.make, tmp_path, request.param)

    return subject


def _used(make: MakeStore, folder: Path, colour: str) -> Iterator[Subject]:
    subject = Subject(make, folder, COLOURS[colour]())
    yield subject
    subject.close()
