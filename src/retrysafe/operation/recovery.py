"""What is done about operations that nobody drives any more (contract R45).

The *completer* sends a stored request again when its owner is gone. The *reaper* marks records unknown whose owner is
gone and that nobody may run again, and expires what is over. The *reconciler* asks the application about records that
are unknown. Each step is one transition that is conditional on what was seen, so any number of hosts may do all of this
at the same time, beside live traffic.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Protocol, TypeVar, assert_never

from retrysafe.drive.step import first, sent
from retrysafe.errors import CallerError, StoreError
from retrysafe.model import Found, Head, Record, State
from retrysafe.observe import name_of
from retrysafe.operation.found_out import Answer, Completed, NotDone, RecordView, StillUnknown, response_of, view_of
from retrysafe.protocol import history
from retrysafe.protocol.effects import Answered, Effect, Fate, Flow, Transition, perform
from retrysafe.protocol.history import Action
from retrysafe.protocol.key import Key, record_id
from retrysafe.protocol.policy import Policy
from retrysafe.protocol.ruling import Ruling, rule_out
from retrysafe.protocol.snapshot import Encryption, Unreadable, seal, take_snapshot
from retrysafe.protocol.stored_request import StoredRequest, unseal_request
from retrysafe.protocol.transitions import (
    CompleteIfUnknown,
    Details,
    ListAbandoned,
    Listed,
    ListRecords,
    MarkUnknownIfLapsed,
    Purge,
    ReadDetails,
    RecordsPage,
)
from retrysafe.stores.contract import Store
from retrysafe.value import value

T = TypeVar("T")

_log = logging.getLogger("retrysafe")

PAGE = 100
AT_ONCE = 4  # requests that one door sends again, or asks about, at the same time

# A record that lapses again and again is left alone for longer each time, and then given up.
ATTEMPTS_MAX = 10
BACKOFF_FIRST_MS, BACKOFF_MOST_MS = 1_000, 600_000

# Who a settlement of the reconciler is by, and why, in the history of the record.
RECONCILER, ASKED = "reconcile", "the application was asked, and knew"

Reconcile = Callable[[RecordView], Answer | Awaitable[Answer]]


class Fared(StrEnum):
    """How one record fared in one pass."""

    DRIVEN = "driven"
    FAILED = "failed"
    GONE = "identity gone"
    TURNED_AWAY = "turned away"
    NOT_HERE = "not of this application"
    UNREADABLE = "unreadable"
    EARLY = "early"
    OVERTAKEN = "overtaken"
    GIVEN_UP = "given up"
    ABANDONED = "marked unknown"
    COMPLETED = "found completed"
    NOT_DONE = "found not done"
    STILL_UNKNOWN = "still unknown"
    EXPIRED = "expired"
    FORGOTTEN = "forgotten"


_NO_HEAD = Head("POST", b"/", b"", ())

# What somebody should look at.
FINDINGS = frozenset(
    {Fared.FAILED, Fared.GONE, Fared.TURNED_AWAY, Fared.UNREADABLE, Fared.GIVEN_UP, Fared.STILL_UNKNOWN}
)

Counts = Counter[Fared]


class Door(Protocol):
    """The door of an application, as recovery needs it."""

    def policy(self, route: str) -> Policy | None:
        """Of the records of a route; None if the door has no such route."""

    async def redrive(self, listed: Listed, stored: StoredRequest) -> Fared:
        """Send a stored request again, as a retry under the same key, in the name of its account."""


@dataclass(frozen=True, slots=True)
class Means:
    """What recovery works with.

    Attributes:
        store: opened.
        namespace: of the door; the records of others are left alone.
        secret: of the store.
        encryption: of stored requests; None where none are stored.
    """

    store: Store
    namespace: str
    secret: bytes
    encryption: Encryption | None


class Completer:
    """Sends stored requests again whose owner is gone.

    Args:
        door: that they go through.
        means: to find and read them.
    """

    def __init__(self, door: Door, means: Means) -> None:
        self._door = door
        self._means = means

    async def run(self, told: Callable[[Counts], None]) -> None:
        """Go once through the abandoned records.

        Raises:
            StoreError: the store failed; what was done by then stays so.
        """
        async for page in _pages(self._means.store, lambda after: ListAbandoned(after, PAGE)):
            await _some_at_once((partial(self._complete, listed, page.now_ms) for listed in page.records), told)

    async def _complete(self, listed: Listed, now_ms: int) -> Fared:
        record = listed.record
        policy = self._door.policy(record.route)
        if policy is None or policy.recovery != "rerun":
            return Fared.NOT_HERE
        if now_ms < due_at_ms(record):
            return Fared.EARLY
        details = await self._means.store.submit(ReadDetails(listed.record_id))
        if details.request is None or self._means.encryption is None:
            return Fared.OVERTAKEN
        try:
            stored = unseal_request(details.request, listed.record_id, self._means.secret, self._means.encryption)
        except Unreadable as error:
            _log.warning("the stored request of record %s cannot be read: %s", name_of(listed.record_id), error)
            return Fared.UNREADABLE
        if not _is_ours(listed.record_id, stored, self._means):
            return Fared.NOT_HERE
        if record.attempt >= ATTEMPTS_MAX:
            giving_up = MarkUnknownIfLapsed(listed.record_id, record.token, policy.unknown_retention_ms)
            return Fared.GIVEN_UP if await self._means.store.submit(giving_up) else Fared.OVERTAKEN
        return await self._door.redrive(listed, stored)


def due_at_ms(record: Record) -> int:
    """When to send an abandoned request again: soon after its lease lapsed, and later after each attempt."""
    return record.lease_until_ms + min(BACKOFF_FIRST_MS << (record.attempt - 1), BACKOFF_MOST_MS)


def _is_ours(identity: bytes, stored: StoredRequest, means: Means) -> bool:
    return record_id(means.secret, means.namespace, stored.scope, Key(stored.key)) == identity


async def reap(door: Door, means: Means, told: Callable[[Counts], None]) -> None:
    """Mark records unknown that nobody may run again and whose owner is gone; expire and forget what is over.

    A client's retry would do the first, and `retrysafe purge` does the second; so neither has to be waited for.

    Raises:
        StoreError: the store failed; what was done by then stays so.
    """

    async def abandon(listed: Listed) -> Fared:
        policy = door.policy(listed.record.route)
        if policy is None or policy.recovery != "manual":
            return Fared.NOT_HERE
        giving_up = MarkUnknownIfLapsed(listed.record_id, listed.record.token, policy.unknown_retention_ms)
        return Fared.ABANDONED if await means.store.submit(giving_up) else Fared.OVERTAKEN

    async for page in _pages(means.store, lambda after: ListRecords((State.IN_PROGRESS,), None, after, PAGE)):
        lapsed = [listed for listed in page.records if listed.record.lease_until_ms <= page.now_ms]
        await _some_at_once((partial(abandon, listed) for listed in lapsed), told)
    more = True
    while more:
        purged = await means.store.submit(Purge())
        more = purged.more
        told(Counter({Fared.EXPIRED: purged.expired, Fared.FORGOTTEN: purged.forgotten}))


class Reconciler:
    """Asks the application about records that are unknown.

    Args:
        door: whose policies say for how long an answer is kept.
        means: to find, read and settle them.
        reconcile: given a `RecordView`, says `Completed`, `NotDone` or `StillUnknown`; may be a coroutine function.
    """

    def __init__(self, door: Door, means: Means, reconcile: Reconcile) -> None:
        self._door = door
        self._means = means
        self._reconcile = reconcile

    async def run(self, told: Callable[[Counts], None]) -> None:
        """Go once through the unknown records.

        Raises:
            StoreError: the store failed; what was done by then stays so.
        """
        async for page in _pages(self._means.store, lambda after: ListRecords((State.UNKNOWN,), None, after, PAGE)):
            await _some_at_once((partial(self._ask, listed) for listed in page.records), told)

    async def _ask(self, listed: Listed) -> Fared:
        policy = self._door.policy(listed.record.route)
        if policy is None:
            return Fared.NOT_HERE
        details = await self._means.store.submit(ReadDetails(listed.record_id))
        found = details.found
        if found is None or found.record.state is not State.UNKNOWN:
            return Fared.OVERTAKEN
        try:
            stored = self._stored_request(listed.record_id, details)
            view = view_of(listed.record_id, details, stored, self._means.secret, self._means.encryption)
        except Unreadable as error:
            _log.warning("what is kept of record %s cannot be read: %s", name_of(listed.record_id), error)
            return Fared.UNREADABLE
        if stored is not None and not _is_ours(listed.record_id, stored, self._means):
            return Fared.NOT_HERE
        try:
            said = self._reconcile(view)
            answer = _checked(await said if inspect.isawaitable(said) else said)
        except Exception:  # noqa: BLE001 - the application's own function, whose failure is for the log
            _log.exception("reconcile= failed for record %s; it stays unknown", name_of(listed.record_id))
            return Fared.FAILED
        return await self._settle(listed.record_id, details, answer, policy, stored)

    def _stored_request(self, identity: bytes, details: Details) -> StoredRequest | None:
        if details.request is None or self._means.encryption is None:
            return None
        return unseal_request(details.request, identity, self._means.secret, self._means.encryption)

    async def _settle(
        self, identity: bytes, details: Details, answer: Answer, policy: Policy, stored: StoredRequest | None
    ) -> Fared:
        means, token = self._means, _there(details).record.token
        match answer:
            case StillUnknown():
                return Fared.STILL_UNKNOWN
            case NotDone():
                forget_after_ms = policy.lifetime_ms
                ruling = Ruling(
                    identity, token, os.urandom(16), details.journal, forget_after_ms, means.secret, means.encryption
                )
                done = await self._traced(identity, details, Action.NOT_DONE, rule_out(ruling), policy)
                return Fared.NOT_DONE if done else Fared.OVERTAKEN
            case Completed():
                response = response_of(answer)
                answered = Answered(response, whole=True, size=len(response.body), digest=b"", fate=Fate.RAN)
                snapshot = take_snapshot(answered, _NO_HEAD if stored is None else stored.head, policy)
                sealed = seal(snapshot, identity, means.secret, means.encryption)
                completing = CompleteIfUnknown(identity, token, sealed, policy.keep_ms, policy.tombstone_ms)
                done = await self._traced(identity, details, Action.COMPLETED, perform(completing), policy)
                return Fared.COMPLETED if done else Fared.OVERTAKEN
            case _:
                assert_never(answer)

    async def _traced(
        self, identity: bytes, details: Details, action: Action, settling: Flow[bool], policy: Policy
    ) -> bool:
        """Settle, with the trace in the history of the record that a person leaves as well (contract R99)."""
        store = self._means.store
        step = history.intervention_in(_there(details), action, RECONCILER, ASKED)
        await store.submit(history.adding(identity, step, policy))
        done = await _perform_all(store, settling)
        if not done:
            await store.submit(history.adding(identity, history.without_effect(step), policy))
        return done


def _checked(answer: object) -> Answer:
    if isinstance(answer, Completed):
        response_of(answer)  # raises if it cannot be one
        return answer
    if isinstance(answer, NotDone | StillUnknown):
        return answer
    raise CallerError(
        f"reconcile= gave a {type(answer).__name__}; it must give Completed(...), NotDone() or StillUnknown()"
    )


def _there(details: Details) -> Found:
    if details.found is None:
        raise AssertionError("a record that is not there was to be settled")
    return details.found


async def _perform_all(store: Store, flow: Flow[T]) -> T:
    """Perform the transitions of a flow, one after the other."""
    wish = first(flow)
    while isinstance(wish, Effect):
        if not isinstance(wish, Transition):
            raise TypeError(f"an effect out of place: {type(wish).__name__}")
        wish = sent(flow, await store.submit(wish))
    return wish


async def _pages(store: Store, listing: Callable[[bytes], Transition[RecordsPage]]) -> AsyncIterator[RecordsPage]:
    after: bytes | None = b""
    while after is not None:
        page = await store.submit(listing(after))
        yield page
        after = page.next_after


async def _some_at_once(work: Iterable[Callable[[], Awaitable[Fared]]], told: Callable[[Counts], None]) -> None:
    """Do it, some at a time; what each comes to is told at once. What is cancelled before its turn is never begun.

    Raises:
        StoreError: of one of them, once the others are over.
    """
    turns = asyncio.Semaphore(AT_ONCE)
    failures: list[StoreError] = []

    async def one(piece: Callable[[], Awaitable[Fared]]) -> None:
        async with turns:
            try:
                told(Counter([await piece()]))
            except StoreError as error:
                failures.append(error)
            except Exception:  # noqa: BLE001 - the application's, of one record: the others are to have their turn
                _log.exception("an operation that nobody drives any more cannot be dealt with")
                told(Counter([Fared.FAILED]))

    async with asyncio.TaskGroup() as group:
        for piece in work:
            group.create_task(one(piece))
    if failures:
        raise failures[0]


@value
class Report:
    """What one pass came to: how many records fared how."""

    counts: dict[Fared, int]

    @property
    def clean(self) -> bool:
        """There is nothing that somebody should look at."""
        return not any(self.counts.get(fared) for fared in FINDINGS)

    def document(self) -> dict[str, int]:
        """As JSON has it."""
        return {fared.value.replace(" ", "_"): self.counts.get(fared, 0) for fared in Fared}

    def line(self) -> str:
        """For people: only what there was."""
        return (
            ", ".join(f"{fared} {self.counts[fared]}" for fared in Fared if self.counts.get(fared)) or "nothing to do"
        )
