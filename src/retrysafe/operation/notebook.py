"""The journal of a running operation, and its steps on asyncio and on threads.

Steps of one operation may be taken at the same time. Each write of the journal is of all of it, so they are made one
after the other; what came meanwhile goes out with the next.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

from retrysafe.drive import SETTLE_S
from retrysafe.drive import aio as on_loop
from retrysafe.drive import sync as on_thread
from retrysafe.drive.step import first, sent, thrown
from retrysafe.errors import ClaimLost, StepMisused, StepUnknown, StoreUnavailable
from retrysafe.model import Claim, Found
from retrysafe.observe import Observer, StoreFailed
from retrysafe.operation.step import Ask, Keep, Load, Look, Step, StepCall, take
from retrysafe.operation.turn import Turn
from retrysafe.protocol.effects import Effect, Fate, Settled, Transition
from retrysafe.protocol.flow import Terms
from retrysafe.protocol.journal import (
    JOURNAL_BYTES_MAX,
    Entry,
    StepId,
    content,
    seal_journal,
    size,
    unseal_journal,
)
from retrysafe.protocol.key import child_key
from retrysafe.protocol.snapshot import Unreadable
from retrysafe.protocol.transitions import Details, KeepJournalIfHeld, Read, ReadDetails
from retrysafe.stores.contract import Store

T = TypeVar("T")


class Notebook:
    """The journal of one attempt of one operation.

    Args:
        store: of the operation's record.
        observer: told when the store fails.
        claim: that this attempt holds.
        terms: of its request.
    """

    def __init__(self, store: Store, observer: Observer, claim: Claim, terms: Terms) -> None:
        self.claimed_at_ms = 0
        self._claim = claim
        self._terms = terms
        self._store = store
        self._observer = observer
        self._turn = Turn()
        self._changing = threading.Lock()  # held for no longer than a change in memory takes
        self._loaded = claim.attempt == 1  # then nobody has written anything
        self._entries: dict[StepId, Entry] = {}
        self._begun: dict[StepId, Step] = {}
        self._version = self._kept = 0
        self._doubted: frozenset[StepId] | None = None  # what the first journal had in it that may arrive late
        self._is_lost = self._is_unknown = self._is_withdrawn = False

    # --- what a step does with it -----------------------------------------------------------------

    def begin(self, step: Step) -> None:
        """The step begins: once in an attempt."""
        with self._changing:
            if step.id in self._begun:
                raise StepMisused(
                    f'step "{step.name}" was taken before in this attempt; give each step a name of its own'
                )
            self._begun[step.id] = step

    def find(self, step: Step) -> Entry | None:
        """Its entry."""
        return self._entries.get(step.id)

    def write(self, step: Step, entry: Entry | None) -> None:
        """Exchange its entry; None takes it out."""
        with self._changing:  # a change that was made of the same entries on another thread would be lost
            self._exchange(step, entry)

    def _exchange(self, step: Step, entry: Entry | None) -> None:
        entries = dict(self._entries)
        if entry is None:
            entries.pop(step.id, None)
            self._is_withdrawn = True
        else:
            entries[step.id] = entry
            if (bytes_now := size(entries.values())) > JOURNAL_BYTES_MAX:
                raise StepMisused(
                    f'step "{step.name}": with its {"result" if entry.result else "input"} the journal has {bytes_now} '
                    f"bytes; at most {JOURNAL_BYTES_MAX}. {_called(entry)}Keep an id or a digest instead of the thing"
                )
        self._entries = entries
        self._version += 1

    def call(self, step: Step, entry: Entry) -> StepCall:
        """What it is called with."""
        key = child_key(self._terms.secret, self._claim.record_id, step.name, step.target)
        return StepCall(key, content(entry.input), entry.sends)

    def holds(self, found: Found | None) -> bool:
        """Whether the record is still this attempt's."""
        return found is not None and found.record.token == self._claim.token

    def give_up(self) -> None:
        """The outcome of the operation is unknown."""
        self._is_unknown = True

    # --- what the operation asks it ---------------------------------------------------------------

    def fate(self) -> Fate:
        """What this attempt came to if it fails now."""
        if self._is_unknown:
            return Fate.UNKNOWN
        reruns = self._terms.policy.recovery == "rerun"
        if not self._loaded:  # the store failed: an earlier attempt may have left something
            return Fate.RESUMABLE if reruns else Fate.OPEN
        interrupted = [self._begun.get(entry.id) for entry in self._entries.values() if not entry.result]
        if interrupted:
            resumable = reruns and all(step is not None and step.resumable for step in interrupted)
            return Fate.RESUMABLE if resumable else Fate.OPEN
        return Fate.RESUMABLE if reruns and self._is_withdrawn else Fate.RAN

    def take(self, step: Step) -> Any:
        """Take a step: a coroutine where a loop runs; elsewhere its result."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._take_on_thread(step)
        return self._take_on_loop(step)

    # --- on asyncio -------------------------------------------------------------------------------

    async def _take_on_loop(self, step: Step) -> Any:
        flow = take(step, self)
        wish: Any = first(flow)
        while isinstance(wish, Effect):
            try:
                answer = await self._perform_on_loop(wish)
            except Exception as error:  # noqa: BLE001 - it is the flow's
                wish = thrown(flow, error)
            else:
                wish = sent(flow, answer)
        return wish

    async def _perform_on_loop(self, wish: Effect[Any]) -> Any:
        match wish:
            case Ask(function, argument):
                answer = function(argument)
                return await answer if inspect.isawaitable(answer) else answer
            case Look():
                return await self._store.submit(Read(self._claim.record_id))
            case Load() if self._loaded:
                return None
            case Keep() | Load():
                await self._turn.arrive()
                try:
                    if isinstance(wish, Keep):
                        return await self._keep_on_loop()
                    if not self._loaded:
                        self._read(await self._store.submit(ReadDetails(self._claim.record_id)))
                    return None
                finally:
                    self._turn.end()
        raise AssertionError(f"an effect that no step asks for: {type(wish).__name__}")

    async def _keep_on_loop(self) -> bool:
        if self._must_write():
            deadline_s = asyncio.get_running_loop().time() + SETTLE_S
            version, entries, watched = self._version, self._entries, _Watched(self._store)
            keeping = self._keeping(entries)
            try:
                settled = await on_loop.settle_until(watched, keeping, deadline_s)
            finally:
                self._doubt(watched, entries)
            self._written(version, settled)
        return not self._is_lost

    # --- on a thread ------------------------------------------------------------------------------

    def _take_on_thread(self, step: Step) -> Any:
        if inspect.iscoroutinefunction(step.call) or inspect.iscoroutinefunction(step.verify):
            _refuse_coroutine(step)
        flow = take(step, self)
        wish: Any = first(flow)
        while isinstance(wish, Effect):
            try:
                answer = self._perform_on_thread(wish, step)
            except Exception as error:  # noqa: BLE001 - it is the flow's
                wish = thrown(flow, error)
            else:
                wish = sent(flow, answer)
        return wish

    def _perform_on_thread(self, wish: Effect[Any], step: Step) -> Any:
        match wish:
            case Ask(function, argument):
                answer = function(argument)
                if inspect.iscoroutine(answer):
                    answer.close()
                    _refuse_coroutine(step)
                return answer
            case Look():
                return self._store.perform(Read(self._claim.record_id))
            case Load() if self._loaded:
                return None
            case Keep() | Load():
                self._turn.wait()
                try:
                    if isinstance(wish, Keep):
                        return self._keep_on_thread()
                    if not self._loaded:
                        self._read(self._store.perform(ReadDetails(self._claim.record_id)))
                    return None
                finally:
                    self._turn.end()
        raise AssertionError(f"an effect that no step asks for: {type(wish).__name__}")

    def _keep_on_thread(self) -> bool:
        if self._must_write():
            deadline_s = time.monotonic() + SETTLE_S
            version, entries, watched = self._version, self._entries, _Watched(self._store)
            keeping = self._keeping(entries)
            try:
                settled = on_thread.settle_until(watched, self._observer, keeping, deadline_s)
            finally:
                self._doubt(watched, entries)
            self._written(version, settled)
        return not self._is_lost

    # --- the journal in the record ----------------------------------------------------------------

    def _read(self, details: Details) -> None:
        """Have what earlier attempts left."""
        found = details.found
        if found is None or not self.holds(found):
            self._is_lost = True
            raise ClaimLost
        self.claimed_at_ms = found.record.claimed_at_ms
        if details.journal is not None:
            terms = self._terms
            try:
                entries = unseal_journal(details.journal, self._claim.record_id, terms.secret, terms.encryption)
            except Unreadable as error:
                self.give_up()
                raise StepUnknown(
                    f"what the steps of an earlier attempt came to cannot be read: {error}. "
                    "The outcome of the operation is unknown until somebody looks"
                ) from None
            self._entries = {entry.id: entry for entry in entries}
        self._loaded = True

    def _must_write(self) -> bool:
        """Whether there is something that is not durable, and a claim to write it under."""
        return not self._is_lost and self._kept < self._version

    def _doubt(self, watched: _Watched, entries: Mapping[StepId, Entry]) -> None:
        """Remember what a journal had in it whose write failed: it may still be applied, after later ones."""
        if watched.is_in_doubt and self._doubted is None:
            self._doubted = frozenset(entries)

    def _keeping(self, entries: Mapping[StepId, Entry]) -> KeepJournalIfHeld:
        """The journal with these entries.

        Raises:
            StoreUnavailable: a journal of this attempt that failed to be written may arrive after this one, and would
                take the intents out that this one adds. Under the token of the next attempt it cannot.
        """
        if self._doubted is not None and not self._doubted.issuperset(entries):
            raise StoreUnavailable(
                "the store failed while this attempt wrote its journal, so it begins no further step; "
                "the next attempt goes on from here"
            )
        terms, claim = self._terms, self._claim
        return KeepJournalIfHeld(claim, seal_journal(entries.values(), claim.record_id, terms.secret, terms.encryption))

    def _written(self, version: int, settled: Settled) -> None:
        if settled is Settled.OPEN:
            fault = StoreUnavailable(f"the journal of steps could not be recorded in {SETTLE_S:g} s; the store is away")
            self._observer.notice(StoreFailed("KeepJournalIfHeld", str(fault)))
            raise fault
        self._is_lost = settled is Settled.REFUSED
        self._kept = version


class _Watched:
    """A store, and whether what it was asked to do is in doubt: it failed, or nobody waited for the answer."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.name = store.name
        self.open = store.open
        self.close = store.close
        self._performing = False
        self._submitted: list[asyncio.Future[Any]] = []

    @property
    def is_in_doubt(self) -> bool:
        return self._performing or any(not done.done() or done.exception() for done in self._submitted)

    def perform(self, transition: Transition[T]) -> T:
        was_in_doubt, self._performing = self._performing, True
        answer = self._store.perform(transition)
        self._performing = was_in_doubt
        return answer

    def submit(self, transition: Transition[T]) -> asyncio.Future[T]:
        future = self._store.submit(transition)
        self._submitted.append(future)
        return future


def _called(entry: Entry) -> str:
    return "The call was made. " if entry.result else "Nothing was called. "


def _refuse_coroutine(step: Step) -> NoReturn:
    raise StepMisused(
        f'step "{step.name}": its call is a coroutine, and no event loop runs on this thread; give a plain function'
    )
