"""The store in memory: the specification that the other stores are measured by.

One dict, one lock, one given clock. Whether a move is allowed is looked up in `protocol.states`; what
it writes stands here once, in the plainest form. The records die with the process, so this is for
tests, demonstrations, and services of one process that may forget.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar, assert_never

from retrysafe.errors import StoreError, StoreUnavailable
from retrysafe.model import Found, Record, State
from retrysafe.protocol.effects import Transition
from retrysafe.protocol.states import GUARDS, TABLE, Event, Guard
from retrysafe.protocol.transitions import (
    ANSWER_DAYS_KEPT,
    DAY_MS,
    STORED_HEAD_BYTES,
    AddHistory,
    AnswerCount,
    ClaimIfAbsent,
    ClaimIfRetryable,
    CompleteIfHeld,
    CompleteIfUnknown,
    CountAnswers,
    Details,
    DiscardIfHeld,
    ForgetIfOver,
    ForgetIfSeen,
    KeepJournalIfHeld,
    ListAbandoned,
    Listed,
    ListRecords,
    ListResponses,
    MarkUnknownIfHeld,
    MarkUnknownIfLapsed,
    Purge,
    Purged,
    Read,
    ReadDetails,
    RecordCount,
    RecordsPage,
    ReleaseIfHeld,
    ReleaseIfUnknown,
    RenewIfHeld,
    ReplaceResponseIfSame,
    ResponsesPage,
    RevokeIfSeen,
    Stats,
    StoredHead,
    TakeOverIfLapsed,
    TakeStats,
)
from retrysafe.stores.clock import Clock, host_clock
from retrysafe.stores.contract import agree_on_secret
from retrysafe.stores.url import StoreUrl

T = TypeVar("T")


def allowed(record: Record, event: Event, token: bytes, now_ms: int) -> bool:
    """May this happen to this record now? Asks the table about its state and checks the guard."""
    if (record.state, event) not in TABLE:
        return False
    match GUARDS[event]:
        # whether its state or its response is the same, who moves the record compares
        case Guard.HELD | Guard.SEEN | Guard.SAME | Guard.UNCHANGED:
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
    return Record(
        state=state,
        token=written.get("token", record.token),
        attempt=written.get("attempt", record.attempt),
        fingerprint=record.fingerprint,
        created_at_ms=record.created_at_ms,
        claimed_at_ms=written.get("claimed_at_ms", record.claimed_at_ms),
        lease_until_ms=written.get("lease_until_ms", record.lease_until_ms),
        settled_at_ms=written.get("settled_at_ms", record.settled_at_ms),
        expires_at_ms=written.get("expires_at_ms", record.expires_at_ms),
        forget_at_ms=written.get("forget_at_ms", record.forget_at_ms),
        response=written.get("response", record.response),
        route=record.route,
    )


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
        self._requests: dict[bytes, bytes] = {}
        self._journals: dict[bytes, bytes] = {}
        self._histories: dict[bytes, list[tuple[int, bytes]]] = {}  # when to forget each entry, and the entry
        self._answers: dict[tuple[int, str], tuple[int, int]] = {}  # by day and route: recorded, replayed
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
                ends = lifetime_ms, forget_after_ms
                return self._complete(Event.COMPLETE, claim.record_id, claim.token, response, *ends)
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
            case KeepJournalIfHeld(claim, journal):
                held = self._move(Event.JOURNAL, claim.record_id, claim.token)
                if held:
                    self._journals[claim.record_id] = journal
                return held
            case ReadDetails(record_id):
                return self._details(record_id)
            case _:
                return self._apply_by_hand(transition)

    def _apply_by_hand(self, transition: Transition[Any]) -> Any:
        """The transitions that no request asks for."""
        match transition:
            case CompleteIfUnknown(record_id, seen_token, response, lifetime_ms, forget_after_ms):
                return self._complete(Event.RESOLVE, record_id, seen_token, response, lifetime_ms, forget_after_ms)
            case ReleaseIfUnknown(record_id, seen_token, forget_after_ms):
                return self._settle(Event.RULE_OUT, record_id, seen_token, self._now_ms + forget_after_ms)
            case RevokeIfSeen(record_id, seen_token, forget_after_ms):
                return self._settle(Event.REVOKE, record_id, seen_token, self._now_ms + forget_after_ms)
            case ForgetIfSeen(record_id, seen_token, seen_state):
                record = self._records.get(record_id)
                unchanged = record is not None and record.state is seen_state
                return unchanged and self._move(Event.ERASE, record_id, seen_token)
            case ReplaceResponseIfSame(record_id, seen_token, seen_response, response):
                record = self._records.get(record_id)
                same = record is not None and record.response == seen_response
                return same and self._move(Event.RESEAL, record_id, seen_token, response=response)
            case AddHistory(record_id, entry, keep_ms):
                self._histories.setdefault(record_id, []).append((self._now_ms + keep_ms, entry))
                return True
            case _:
                return self._apply_to_many(transition)

    def _apply_to_many(self, transition: Transition[Any]) -> Any:
        match transition:
            case Purge(batch_max):
                return self._purge(batch_max)
            case ListRecords():
                return self._list_records(transition, self._listed(transition.states, transition.route))
            case ListAbandoned():
                return self._list_records(transition, self._abandoned())
            case ListResponses():
                return self._list_responses(transition)
            case CountAnswers(counts):
                return self._count_answers(counts)
            case TakeStats(days):
                return self._take_stats(days)
            case _:
                raise AssertionError(f"a transition that this store does not know: {type(transition).__name__}")

    def _claim(self, claim: ClaimIfAbsent) -> Found:
        record = self._records.get(claim.record_id)
        if record is None:
            record = self._records[claim.record_id] = claim.first_record(self._now_ms)
            if claim.request is not None:
                self._requests[claim.record_id] = claim.request
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

    def _complete(  # noqa: PLR0913, PLR0917 - what completing consists of
        self,
        event: Event,
        record_id: bytes,
        token: bytes,
        response: bytes,
        lifetime_ms: int,
        forget_after_ms: int,
    ) -> bool:
        """Keep a response; what a later attempt would go on from has done its work."""
        expires_at_ms = self._now_ms + lifetime_ms
        forget_at_ms = expires_at_ms + forget_after_ms
        done = self._settle(event, record_id, token, forget_at_ms, expires_at_ms=expires_at_ms, response=response)
        if done:
            self._drop_extras(record_id)
        return done

    def _drop_extras(self, record_id: bytes) -> None:
        self._requests.pop(record_id, None)
        self._journals.pop(record_id, None)

    def _details(self, record_id: bytes) -> Details:
        record = self._records.get(record_id)
        return Details(
            found=None if record is None else Found(record, self._now_ms),
            request=self._requests.get(record_id),
            journal=self._journals.get(record_id),
            history=tuple(
                entry for forget_at_ms, entry in self._histories.get(record_id, ()) if forget_at_ms > self._now_ms
            ),
        )

    def _move(self, event: Event, record_id: bytes, seen_token: bytes, **written: Any) -> bool:
        """Let `event` happen if it may; say whether it did."""
        record = self._records.get(record_id)
        if record is None or not allowed(record, event, seen_token, self._now_ms):
            return False
        after = TABLE[record.state, event]
        if after is None:
            del self._records[record_id]
            self._drop_extras(record_id)
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
        for record_id, entries in list(islice(self._histories_due(), batch_max)):
            self._histories[record_id] = [entry for entry in entries if entry[0] > self._now_ms]
            if not self._histories[record_id]:
                del self._histories[record_id]
        more = any(True for _ in self._due()) or any(True for _ in self._histories_due())
        return Purged(expired, forgotten, more=more)

    def _histories_due(self) -> Iterator[tuple[bytes, list[tuple[int, bytes]]]]:
        for record_id, entries in self._histories.items():
            if any(forget_at_ms <= self._now_ms for forget_at_ms, _ in entries):
                yield record_id, entries

    def _due(self) -> Iterator[tuple[bytes, Record]]:
        """The records that a purge has something to do with."""
        for record_id, record in self._records.items():
            if record.forget_at_ms <= self._now_ms or allowed(record, Event.EXPIRE, record.token, self._now_ms):
                yield record_id, record

    # --- many records -----------------------------------------------------------------------------

    def _listed(self, states: Sequence[State], route: str | None) -> list[bytes]:
        return [
            record_id
            for record_id, record in self._records.items()
            if record.state in states and route in (None, record.route)
        ]

    def _abandoned(self) -> list[bytes]:
        records = ((record_id, self._records[record_id]) for record_id in self._requests)
        return [
            record_id for record_id, record in records if allowed(record, Event.TAKE_OVER, record.token, self._now_ms)
        ]

    def _list_records(self, wish: ListRecords | ListAbandoned, ids: Sequence[bytes]) -> RecordsPage:
        page = sorted(record_id for record_id in ids if record_id > wish.after)[: wish.batch_max]
        listed = tuple(Listed(record_id, replace(self._records[record_id], response=None)) for record_id in page)
        return RecordsPage(listed, self._now_ms, page[-1] if len(page) == wish.batch_max else None)

    def _list_responses(self, wish: ListResponses) -> ResponsesPage:
        ids = sorted(record_id for record_id, record in self._records.items() if record.response is not None)
        page = [record_id for record_id in ids if record_id > wish.after][: wish.batch_max]
        heads = ((record_id, self._records[record_id].response or b"") for record_id in page)
        responses = tuple(StoredHead(record_id, response[:STORED_HEAD_BYTES]) for record_id, response in heads)
        return ResponsesPage(responses, page[-1] if len(page) == wish.batch_max else None)

    def _count_answers(self, counts: Sequence[AnswerCount]) -> bool:
        today = self._now_ms // DAY_MS
        for count in counts:
            recorded, replayed = self._answers.get((today, count.route), (0, 0))
            self._answers[today, count.route] = recorded + count.recorded, replayed + count.replayed
        self._answers = {place: sums for place, sums in self._answers.items() if place[0] > today - ANSWER_DAYS_KEPT}
        return True

    def _take_stats(self, days: int) -> Stats:
        groups: dict[tuple[str, State], list[Record]] = {}
        for record in self._records.values():
            groups.setdefault((record.route, record.state), []).append(record)
        records = tuple(
            RecordCount(
                route,
                state,
                records=len(group),
                response_bytes=sum(len(record.response or b"") for record in group),
                oldest_claim_ms=min(record.claimed_at_ms for record in group),
            )
            for (route, state), group in sorted(groups.items())
        )
        answers: dict[str, tuple[int, int]] = {}
        for (day, route), (recorded, replayed) in self._answers.items():
            if day > self._now_ms // DAY_MS - days:
                before = answers.get(route, (0, 0))
                answers[route] = before[0] + recorded, before[1] + replayed
        return Stats(self._now_ms, records, tuple(AnswerCount(route, *sums) for route, sums in sorted(answers.items())))


def store_of(url: StoreUrl) -> MemoryStore:
    """The store that `memory://` names: one of its own each time."""
    url.refuse(url.authority or url.path.strip("/"), "memory:// has no name: each is its own")
    url.refuse_rest()
    return MemoryStore()
