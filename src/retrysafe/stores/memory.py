"""The store in memory: the specification that the other stores are measured by.

One dict, one lock, one given clock. Whether a move is allowed is looked up in `protocol.states`; what
it writes stands here once, in the plainest form. The records die with the process, so this is for
tests, demonstrations, and services of one process that may forget.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from itertools import islice
from typing import Any, TypeVar, assert_never

from retrysafe.errors import StoreError, StoreUnavailable
from retrysafe.model import Found, Record, State
from retrysafe.protocol.effects import (
    ClaimIfAbsent,
    ClaimIfRetryable,
    CompleteIfHeld,
    DiscardIfHeld,
    ForgetIfOver,
    MarkUnknownIfHeld,
    MarkUnknownIfLapsed,
    Purge,
    Purged,
    Read,
    ReleaseIfHeld,
    RenewIfHeld,
    TakeOverIfLapsed,
    Transition,
)
from retrysafe.protocol.states import GUARDS, TABLE, Event, Guard, target
from retrysafe.stores.clock import Clock, host_clock
from retrysafe.stores.contract import agree_on_secret

T = TypeVar("T")

_CLAIMED = State(target(Event.CLAIM) or "")


def allowed(record: Record, event: Event, token: bytes, now_ms: int) -> bool:
    """May this happen to this record now? Asks the table about its state and checks the guard."""
    if (record.state, event) not in TABLE:
        return False
    match GUARDS[event]:
        case Guard.HELD | Guard.SEEN:
            return record.token == token
        case Guard.LAPSED:
            return record.token == token and record.lease_until_ms <= now_ms
        case Guard.LIFETIME_OVER:
            return record.expires_at_ms is not None and record.expires_at_ms <= now_ms
        case Guard.FORGETTABLE:
            return record.token == token and record.forget_at_ms <= now_ms
        case Guard.ABSENT:
            return False
        case guard:
            assert_never(guard)


def _rewritten(record: Record, state: State, written: dict[str, Any]) -> Record:
    """The record in another state, with what was written; by hand, because `replace` is half of a transition."""
    after = Record(
        state,
        record.token,
        record.attempt,
        record.fingerprint,
        record.created_at_ms,
        record.claimed_at_ms,
        record.lease_until_ms,
        record.settled_at_ms,
        record.expires_at_ms,
        record.forget_at_ms,
        record.response,
    )
    for attribute, content in written.items():
        object.__setattr__(after, attribute, content)
    return after


class MemoryStore:
    """Records in this process, for as long as it lives.

    Args:
        clock: milliseconds; the store makes it monotone.
    """

    name = "memory"

    def __init__(self, clock: Clock = host_clock) -> None:
        self._clock = clock
        self._now_ms = 0
        self._lock = threading.Lock()
        self._records: dict[bytes, Record] = {}
        self._held_secret: bytes | None = None
        self._secret_check: bytes | None = None
        self._closed = False

    def open(self, secret: bytes | None = None) -> bytes:
        """Agree on the secret; after `close`, find the same records again."""
        with self._lock:
            used, self._held_secret, self._secret_check = agree_on_secret(secret, self._held_secret, self._secret_check)
            self._closed = False
            return used

    def perform(self, transition: Transition[T]) -> T:
        """Do one transition."""
        with self._lock:
            if self._closed:
                raise StoreUnavailable("the memory store is closed; open it before it is used")
            self._now_ms = max(self._now_ms, self._clock())
            answer: T = self._apply(transition)
            return answer

    def submit(self, transition: Transition[T]) -> asyncio.Future[T]:
        """Do one transition at once: the future is done when it is returned."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            future.set_result(self.perform(transition))
        except StoreError as error:
            future.set_exception(error)
        return future

    def close(self) -> None:
        """Refuse transitions until the store is opened again."""
        with self._lock:
            self._closed = True

    def _apply(self, transition: Transition[Any]) -> Any:  # noqa: C901, PLR0912 one branch for each transition
        now_ms = self._now_ms
        match transition:
            case ClaimIfAbsent():
                return self._claim(transition)
            case Read(record_id):
                record = self._records.get(record_id)
                return None if record is None else Found(record, now_ms)
            case CompleteIfHeld(claim, response, lifetime_ms, forget_after_ms):
                expires_at_ms = now_ms + lifetime_ms
                return self._settle(
                    Event.COMPLETE,
                    claim.record_id,
                    claim.token,
                    expires_at_ms + forget_after_ms,
                    expires_at_ms=expires_at_ms,
                    response=response,
                )
            case RenewIfHeld(claim, lease_ms, forget_after_ms):
                lease_until_ms = now_ms + lease_ms
                return self._move(
                    Event.RENEW,
                    claim.record_id,
                    claim.token,
                    lease_until_ms=lease_until_ms,
                    forget_at_ms=lease_until_ms + forget_after_ms,
                )
            case TakeOverIfLapsed():
                return self._claim_again(Event.TAKE_OVER, transition)
            case ClaimIfRetryable():
                return self._claim_again(Event.RECLAIM, transition)
            case ReleaseIfHeld(claim, forget_after_ms):
                return self._settle(Event.RELEASE, claim.record_id, claim.token, now_ms + forget_after_ms)
            case MarkUnknownIfHeld(claim, forget_after_ms):
                return self._settle(Event.GIVE_UP, claim.record_id, claim.token, now_ms + forget_after_ms)
            case MarkUnknownIfLapsed(record_id, seen_token, forget_after_ms):
                return self._settle(Event.ABANDON, record_id, seen_token, now_ms + forget_after_ms)
            case DiscardIfHeld(claim):
                return self._move(Event.DISCARD, claim.record_id, claim.token)
            case ForgetIfOver(record_id, seen_token):
                return self._move(Event.FORGET, record_id, seen_token)
            case Purge(batch_max):
                return self._purge(batch_max)
            case _:
                raise AssertionError(f"a transition that this store does not know: {type(transition).__name__}")

    def _claim(self, claim: ClaimIfAbsent) -> Found:
        record = self._records.get(claim.record_id)
        if record is None:
            lease_until_ms = self._now_ms + claim.lease_ms
            record = self._records[claim.record_id] = Record(
                state=_CLAIMED,
                token=claim.token,
                attempt=1,
                fingerprint=claim.fingerprint,
                created_at_ms=self._now_ms,
                claimed_at_ms=self._now_ms,
                lease_until_ms=lease_until_ms,
                settled_at_ms=None,
                expires_at_ms=None,
                forget_at_ms=lease_until_ms + claim.forget_after_ms,
                response=None,
            )
        return Found(record, self._now_ms)

    def _claim_again(self, event: Event, claim: TakeOverIfLapsed | ClaimIfRetryable) -> bool:
        record = self._records.get(claim.record_id)
        lease_until_ms = self._now_ms + claim.lease_ms
        return record is not None and self._move(
            event,
            claim.record_id,
            claim.seen_token,
            token=claim.token,
            attempt=record.attempt + 1,
            claimed_at_ms=self._now_ms,
            lease_until_ms=lease_until_ms,
            settled_at_ms=None,
            forget_at_ms=lease_until_ms + claim.forget_after_ms,
        )

    def _settle(self, event: Event, record_id: bytes, token: bytes, forget_at_ms: int, **written: Any) -> bool:
        return self._move(event, record_id, token, settled_at_ms=self._now_ms, forget_at_ms=forget_at_ms, **written)

    def _move(self, event: Event, record_id: bytes, seen_token: bytes, **written: Any) -> bool:
        """Let `event` happen if it may; say whether it did."""
        record = self._records.get(record_id)
        if record is None or not allowed(record, event, seen_token, self._now_ms):
            return False
        after = TABLE[record.state, event]
        if after is None:
            del self._records[record_id]
        else:
            self._records[record_id] = _rewritten(record, after, written)
        return True

    def _purge(self, batch_max: int) -> Purged:
        expired = forgotten = 0
        for record_id, record in list(islice(self._due(), batch_max)):
            if self._move(Event.FORGET, record_id, record.token):
                forgotten += 1
            elif self._move(Event.EXPIRE, record_id, record.token, response=None):
                expired += 1
            else:
                self._move(Event.ABANDON, record_id, record.token, settled_at_ms=self._now_ms)
        return Purged(expired, forgotten, more=any(True for _ in self._due()))

    def _due(self) -> Iterator[tuple[bytes, Record]]:
        """The records that a purge has something to do with."""
        for record_id, record in self._records.items():
            if record.forget_at_ms <= self._now_ms or allowed(record, Event.EXPIRE, record.token, self._now_ms):
                yield record_id, record
