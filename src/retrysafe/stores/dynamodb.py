"""The store in one DynamoDB table: for applications that run without servers of their own.

A claim is one request: a put on the condition that there is no record, which answers with the record that
there is. Every other transition is a conditional update or delete. The driver is blocking: blocking callers
use it on their own threads, event loops through a few threads of the store.

What is too large for the item of a record is in items of its own (`dynamodb_parts`); a history is an item as well
(`dynamodb_history`).

Conditions of the service know no time, so writers say what time it is, by the service's clock
(`dynamodb_clock`); a write that would be dated before the last one is refused and said again with its date.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from retrysafe.errors import StoreError, StoreUnavailable
from retrysafe.model import Found, State
from retrysafe.protocol.effects import Transition
from retrysafe.protocol.states import Event
from retrysafe.protocol.transitions import (
    ANSWER_DAYS_KEPT,
    DAY_MS,
    AddHistory,
    AnswerCount,
    ClaimIfAbsent,
    CountAnswers,
    Details,
    ListAbandoned,
    Listed,
    ListRecords,
    ListResponses,
    Purge,
    Purged,
    Read,
    ReadDetails,
    RecordsPage,
    ReplaceResponseIfSame,
    ResponsesPage,
    Stats,
    StoredHead,
    TakeStats,
)
from retrysafe.stores import dynamodb_history
from retrysafe.stores.census import Census
from retrysafe.stores.clock import Clock
from retrysafe.stores.contract import Pending
from retrysafe.stores.dynamodb_clock import ServiceClock
from retrysafe.stores.dynamodb_items import (
    ABANDONED,
    BESIDE,
    CENSUS,
    CHANGES,
    CONTENTS,
    COUNT,
    DUE,
    FORGET,
    HEADS,
    IN_PARTS,
    INLINE_BYTES_MAX,
    KEY,
    META,
    PURGE,
    RESEALS,
    Change,
    Item,
    Value,
    answers_key,
    bytes_of,
    count_of,
    dated_at_ms,
    first_item,
    id_of,
    listed,
    marshalled,
    mentioned,
    number,
    part_keys,
    record_of,
    values_of,
)
from retrysafe.stores.dynamodb_parts import LOOKS_MAX, Parts
from retrysafe.stores.dynamodb_table import Refused, Session, Table
from retrysafe.stores.memory import allowed
from retrysafe.stores.migrations import Migration
from retrysafe.stores.url import StoreUrl

T = TypeVar("T")

THREADS_MAX = 16
DATED_MAX = 8  # times that a write is said again, because the record was dated later meanwhile
PAGES_MAX = 16  # of the table that one batch of purging looks at


class DynamoStore:
    """Records in one DynamoDB table.

    Args:
        table: its name; it is made if there is none.
        session: where boto3 takes credentials and the like from; None for its own ways.
        region: of Amazon's; None for the session's.
        endpoint_url: of a service that speaks DynamoDB's protocol and is not Amazon's.
        create: make the table if there is none.
        clock: milliseconds; the store makes it monotone. None for the service's, which nobody here can set.

    Raises:
        ConfigurationError: there are credentials in the URL.
    """

    def __init__(  # noqa: PLR0913 each is a setting of its own, given by name
        self,
        table: str,
        *,
        session: Session | None = None,
        region: str | None = None,
        endpoint_url: str | None = None,
        create: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self.name = f"dynamodb {table}"
        self._service_clock = None
        if clock is None:
            clock = self._service_clock = ServiceClock()
        self._clock = clock
        self._table = Table(table, session=session, region=region, endpoint_url=endpoint_url, clock=self._service_clock)
        self._parts = Parts(self._table)
        self._create = create
        self._now_ms = 0
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._closed = False
        self._purging_from: Item | None = None  # the page of the table that the next batch begins with
        _STORES.add(self)

    def open(self, secret: bytes | None = None) -> bytes:
        """Make the table if there is none, and agree on the secret; after `close`, open it again."""
        with self._lock:
            self._closed = False
        return self._table.agree_on_secret(secret, self._table.make_ready(create=self._create))

    def missing_migrations(self) -> Sequence[Migration]:
        """To make the table, if there is none. Changes and makes nothing."""
        return () if self._table.is_there() else (self._table.migration(),)

    def migrate(self) -> Sequence[Migration]:
        """Make the table if there is none, unless the store is told not to."""
        missing = self.missing_migrations()
        self._table.make_ready(create=self._create)
        return missing

    def perform(self, transition: Transition[T]) -> T:
        """Do one transition on this thread."""
        self._refuse_if_closed()
        answer: T = self._do(transition)
        return answer

    def submit(self, transition: Transition[T]) -> asyncio.Future[T]:
        """Hand one transition to the threads of this store."""
        future: Pending[T] = Pending(loop=asyncio.get_running_loop())
        try:
            with self._lock:
                self._refuse_if_closed()
                self._pool = self._pool or ThreadPoolExecutor(THREADS_MAX, thread_name_prefix=f"retrysafe {self.name}")
                self._pool.submit(self._answer, transition, future)
        except StoreError as error:
            future.set_exception(error)
        except RuntimeError as error:  # no thread is to be had; one that there is does the work all the same
            future.set_exception(StoreUnavailable(f"{self.name}: {error}; perhaps it was done"))
        return future

    def close(self) -> None:
        """Finish what was handed over, end the threads and close the connections."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()
        self._table.close()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"{self.name} is closed; open it before it is used")

    def _answer(self, transition: Transition[Any], future: asyncio.Future[Any]) -> None:
        outcome: Any
        try:
            outcome = self._do(transition)
        except StoreError as error:
            outcome = error
        except Exception as error:  # noqa: BLE001 - whoever waits for a thread that failed would wait for ever
            outcome = StoreUnavailable(f"{self.name}: {type(error).__name__}, which was not expected")
            outcome.__cause__ = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits there any more
            future.get_loop().call_soon_threadsafe(_settle, future, outcome)

    def _forked(self) -> None:
        """Begin anew in a child: threads, connections and locks are the parent's."""
        self._lock = threading.Lock()
        self._pool = None
        self._table.abandon()
        if self._service_clock is not None:
            self._service_clock.restart()

    # --- time -------------------------------------------------------------------------------------

    def _now(self) -> int:
        """The time, asked for if this host has not heard of it lately."""
        if self._service_clock is not None and not self._service_clock.is_fresh():
            self._table.read(META)
        now_ms = self._clock()
        with self._lock:
            self._now_ms = max(self._now_ms, now_ms)
            return self._now_ms

    # --- transitions ------------------------------------------------------------------------------

    def _do(self, transition: Transition[Any]) -> Any:
        match transition:
            case ClaimIfAbsent():
                return self._claim(transition)
            case Read(record_id):
                return self._found(record_id, self._table.read(record_id), self._now())
            case ReadDetails(record_id):
                return self._details(record_id)
            case AddHistory():
                return dynamodb_history.add(self._table, transition, self._now())
            case ReplaceResponseIfSame():
                return self._replace(transition)
            case _ if type(transition) in CHANGES:
                return self._change(transition)
            case _:
                return self._do_to_many(transition)

    def _do_to_many(self, transition: Transition[Any]) -> Any:
        match transition:
            case Purge(batch_max):
                return self._purge(batch_max)
            case ListRecords():
                values: dict[str, Value] = {} if transition.route is None else {"route": transition.route}
                return self._list(transition, mentioned(values, **listed(transition)), self._now())
            case ListAbandoned():
                now_ms = self._now()
                return self._list(transition, mentioned({"now_ms": now_ms}, **ABANDONED), now_ms)
            case ListResponses():
                return self._list_responses(transition)
            case CountAnswers(counts):
                return self._count_answers(counts)
            case TakeStats(days):
                return self._take_stats(days)
            case _:
                raise AssertionError(f"nothing does {type(transition).__name__}")

    def _claim(self, claim: ClaimIfAbsent) -> Found:
        """One request; a second one only where somebody deletes the record in the same moment.

        A large request is put into parts first; so before that, whether the record is there.
        """
        now_ms = self._now()
        request: dict[str, Value] = {"request": claim.request}
        if claim.request is not None and len(claim.request) > INLINE_BYTES_MAX:
            if (standing := self._found(claim.record_id, self._table.read(claim.record_id), now_ms)) is not None:
                return standing
            end_ms = now_ms + claim.lease_ms + claim.forget_after_ms
            request = self._parts.put(claim.request, "request", end_ms)
        for _ in range(LOOKS_MAX):
            record, attributes = first_item(claim, now_ms)
            refused = self._table.insert(attributes | request)
            if refused is None:
                return Found(record, now_ms)
            if (found := self._found(claim.record_id, refused.item, now_ms)) is not None:
                if part_keys(refused.item or {}, "request") != part_keys(marshalled(request), "request"):
                    self._parts.remove(marshalled(request), ("request",))
                return found
        self._parts.remove(marshalled(request), ("request",))
        raise StoreUnavailable(f"{self.name}: a record comes and goes faster than it can be read; try again")

    def _found(self, record_id: bytes, item: Item | None, now_ms: int) -> Found | None:
        """An item as a record, with its parts, and the time: never before it was written."""
        whole = self._parts.whole(record_id, item, ("response",))
        if whole is None:
            return None
        item, contents = whole
        return Found(record_of(item, contents["response"]), max(now_ms, dated_at_ms(item)))

    def _details(self, record_id: bytes) -> Details:
        """The history is an item of its own."""
        whole = self._parts.whole(record_id, self._table.read(record_id), CONTENTS)
        now_ms = self._now()
        history = dynamodb_history.read(self._table, record_id, now_ms)
        if whole is None:
            return Details(None, None, None, history)
        item, contents = whole
        found = Found(record_of(item, contents["response"]), max(now_ms, dated_at_ms(item)))
        return Details(found, contents["request"], contents["journal"], history)

    def _change(self, transition: Transition[bool]) -> bool:
        """One conditional write; with what is too large for the record in parts."""
        content = next((name for name in ("response", "journal") if hasattr(transition, name)), "")
        if len(getattr(transition, content, b"")) > INLINE_BYTES_MAX:
            return self._change_in_parts(transition, content)
        change = CHANGES[type(transition)]
        return self._move(change, id_of(transition), lambda now_ms: values_of(transition, now_ms))

    def _change_in_parts(self, transition: Transition[bool], content: str) -> bool:
        """The parts first, then the record that refers to them; never one that refers to what is not there."""
        end_ms = self._now() + getattr(transition, "lifetime_ms", 0)
        if content in BESIDE:  # these live as long as the record
            item = self._table.read(id_of(transition))
            end_ms = (number(item, "forget_at_ms") if item else None) or end_ms
        parts = self._parts.put(getattr(transition, content), content, end_ms)
        return self._refer_to(parts, content, IN_PARTS[type(transition)], transition, {})

    def _move(self, change: Change, record_id: bytes, values: Callable[[int], dict[str, Value]]) -> bool:
        """Write what an event writes if it may happen; did it?

        Args:
            change: the conditional write.
            record_id: of the record.
            values: what it mentions, at a time in milliseconds.
        """
        write_id = secrets.token_bytes(16)
        now_ms = self._now()
        for _ in range(DATED_MAX):
            its_values = values(now_ms) | {"write_id": write_id}
            wanted = mentioned(its_values, ConditionExpression=change.condition, UpdateExpression=change.update)
            write = self._table.update if change.update else self._table.delete
            answer = write(record_id, wanted)
            if not isinstance(answer, Refused):
                self._tend_parts(change, answer, its_values)
                return True
            if answer.item is None or bytes_of(answer.item, "write_id") == write_id:
                return answer.item is not None
            if dated_at_ms(answer.item) <= now_ms:
                return False
            now_ms = dated_at_ms(answer.item)
        raise StoreUnavailable(f"{self.name}: a record is written faster than this host can; it was not applied")

    def _tend_parts(self, change: Change, before: Item, values: Mapping[str, Value]) -> None:
        """Remove the parts that a record had and no longer refers to; those that it still does live on with it."""
        self._parts.remove(before, change.drops)
        until_ms, was_until_ms = values.get("forget_at_ms"), number(before, "forget_at_ms")
        if ":forget_at_ms" in change.update and isinstance(until_ms, int) and was_until_ms is not None:
            going_on = [name for name in BESIDE if name not in change.drops]
            self._parts.keep_on(before, going_on, was_until_ms, until_ms)

    def _refer_to(
        self, parts: dict[str, Value], of: str, change: Change, transition: Transition[bool], seen: dict[str, Value]
    ) -> bool:
        """Let a record refer to parts that are there; if it does not come to that, they go."""
        kept = self._move(change, id_of(transition), lambda now_ms: values_of(transition, now_ms) | parts | seen)
        if not kept and parts:
            self._parts.remove(marshalled(parts), (of,))
        return kept

    def _replace(self, replace: ReplaceResponseIfSame) -> bool:
        """Exchange what was seen for other bytes: where either is in parts, by the name of these."""
        whole = self._parts.whole(replace.record_id, self._table.read(replace.record_id), ("response",))
        if whole is None:
            return False
        item, contents = whole
        if replace.seen_response != contents["response"]:
            return False
        seen_parts_id = bytes_of(item, "parts_id")
        large = len(replace.response) > INLINE_BYTES_MAX
        end_ms = number(item, "expires_at_ms") or 0
        parts = self._parts.put(replace.response, "response", end_ms) if large else {}
        seen: dict[str, Value] = {} if seen_parts_id is None else {"seen_parts_id": seen_parts_id}
        return self._refer_to(parts, "response", RESEALS[seen_parts_id is not None, large], replace, seen)

    # --- purging ----------------------------------------------------------------------------------

    def _purge(self, batch_max: int) -> Purged:
        """Go on through the table where the last batch ended; one pass is over when there is no more."""
        now_ms = self._now()
        due = mentioned({"now_ms": now_ms}, FilterExpression=DUE)
        expired = forgotten = 0
        left = batch_max
        for _ in range(PAGES_MAX):
            items, following = self._table.page(due, self._purging_from)
            done = [self._purge_one(item, now_ms) for item in items[:left]]
            expired += done.count(Event.EXPIRE)
            forgotten += done.count(Event.FORGET)
            if len(items) > left or Event.ABANDON in done:  # what was abandoned is due to be forgotten
                return Purged(expired, forgotten, more=True)
            left -= len(items)
            self._purging_from = following
            if following is None:
                return Purged(expired, forgotten, more=False)
        return Purged(expired, forgotten, more=True)

    def _purge_one(self, item: Item, now_ms: int) -> Event | None:
        """Do to an item what is due; what that was, None if nothing was or somebody else did it."""
        key = bytes(item[KEY]["B"])
        if "entries" in item:
            dynamodb_history.purge(self._table, key, item, now_ms)
            return None
        if "state" not in item:  # a part that nobody refers to any more, or the answers of a day long over
            self._table.delete(key, mentioned({"now_ms": now_ms}, **FORGET))
            return None
        record = record_of(item, None)
        for change in PURGE:
            if allowed(record, change.event, record.token, now_ms):
                happened = self._move(change, key, lambda now_ms: {"now_ms": now_ms, "seen_token": record.token})
                return change.event if happened else None
        return None

    # --- many records -----------------------------------------------------------------------------

    def _list_responses(self, wish: ListResponses) -> ResponsesPage:
        """As many items as responses are wanted are looked at, of which some have none."""
        start = marshalled({KEY: wish.after}) if wish.after else None
        heads = mentioned({}, **HEADS) | {"Limit": wish.batch_max}
        items, following = self._table.page(heads, start)
        found = ((bytes_of(item, KEY), bytes_of(item, "response_head")) for item in items)
        responses = tuple(StoredHead(record_id, head) for record_id, head in found if record_id and head is not None)
        return ResponsesPage(responses, bytes_of(following, KEY) if following else None)

    def _list(self, wish: ListRecords | ListAbandoned, wanted: dict[str, Any], now_ms: int) -> RecordsPage:
        """As many items as records are wanted are looked at, of which some may not be listed."""
        start = marshalled({KEY: wish.after}) if wish.after else None
        items, following = self._table.page(wanted | {"Limit": wish.batch_max}, start)
        records = tuple(Listed(bytes(item[KEY]["B"]), record_of(item, None)) for item in items)
        return RecordsPage(records, now_ms, bytes_of(following, KEY) if following else None)

    def _count_answers(self, counts: Sequence[AnswerCount]) -> bool:
        """One request for each route; when one fails, those before it have counted."""
        day = self._now() // DAY_MS
        for count in counts:
            adding = mentioned(count_of(count, day), UpdateExpression=COUNT)
            self._table.add(answers_key(day, count.route), adding)
        return True

    def _take_stats(self, days: int) -> Stats:
        """Look at the whole table, without its responses."""
        now_ms = self._now()
        first_day = now_ms // DAY_MS - min(days, ANSWER_DAYS_KEPT) + 1
        census = Census()
        start: Item | None = None
        while True:
            items, start = self._table.page(mentioned({}, **CENSUS), start)
            for item in items:
                _count(census, item, first_day)
            if start is None:
                return census.stats(now_ms)


def _count(census: Census, item: Item, first_day: int) -> None:
    route, day = item["route"]["S"], number(item, "day")
    if day is None:
        claimed_at_ms, size_bytes = number(item, "claimed_at_ms") or 0, number(item, "response_bytes") or 0
        census.add_record(route, State(item["state"]["S"]), claimed_at_ms, size_bytes)
    elif day >= first_day:
        recorded, replayed = number(item, "recorded") or 0, number(item, "replayed") or 0
        census.add_answers(route, recorded=recorded, replayed=replayed)


def _settle(future: asyncio.Future[Any], outcome: Any) -> None:
    if future.done():  # it was given up already, because no thread was to be had
        return
    if isinstance(outcome, StoreError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


_STORES: weakref.WeakSet[DynamoStore] = weakref.WeakSet()


def _after_fork() -> None:
    for store in _STORES:
        store._forked()  # noqa: SLF001 - the store's own module


os.register_at_fork(after_in_child=_after_fork)


def store_of(url: StoreUrl) -> DynamoStore:
    """The store that a URL names.

    Args:
        url: `dynamodb://TABLE`, with `region=`, `endpoint_url=`, and `create=false` if the table must be there already.
    """
    url.refuse("@" in url.authority, "boto3 takes credentials from its own places")
    url.refuse(not url.authority or url.path.strip("/"), "it names one table")
    create = url.flag("create", default=True)
    region, endpoint_url = url.option("region"), url.option("endpoint_url")
    url.refuse("@" in (endpoint_url or ""), "endpoint_url has credentials in it")
    url.refuse_rest()
    return DynamoStore(url.authority, region=region, endpoint_url=endpoint_url, create=create)
