"""Counts answers by route, and writes the counts to the store in batches: a replay itself writes nothing.

A process that is killed loses what it counted since the last batch. So does one whose store is away when a
batch is due: it may or may not have been written, and is not written twice.

`Tally` is for asyncio, `BlockingTally` for threads. Either is an observer that tells the one it was given.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from contextlib import suppress
from typing import Any

from retrysafe.errors import StoreError
from retrysafe.observe import Event, Handled, Observer
from retrysafe.protocol.answers import Ending
from retrysafe.protocol.transitions import AnswerCount, CountAnswers
from retrysafe.stores.contract import Store

EVERY_S = 10.0
_PLACES: dict[str, int] = {Ending.RECORDED: 0, Ending.RECORDED_OUTSIDE: 0, Ending.MISJUDGED: 0, Ending.REPLAYED: 1}


class _Counts:
    """Recorded and replayed answers, by route, since they were last taken."""

    def __init__(self) -> None:
        self._sums: dict[str, list[int]] = {}

    def add(self, event: Handled) -> bool:
        """Count it, if it is an answer; whether it was."""
        place = _PLACES.get(event.ending)
        if place is None:
            return False
        self._sums.setdefault(event.route, [0, 0])[place] += 1
        return True

    def take(self) -> CountAnswers | None:
        """What is to be written; None if nothing was counted."""
        sums, self._sums = self._sums, {}
        return CountAnswers(tuple(AnswerCount(route, *both) for route, both in sorted(sums.items()))) if sums else None


class Tally:
    """Counts on an event loop.

    Args:
        observer: told of everything.
        store: where the counts go.
        every_s: how long counts are kept here.
    """

    def __init__(self, observer: Observer, store: Store, every_s: float = EVERY_S) -> None:
        self._observer = observer
        self._store = store
        self._every_s = every_s
        self._counts = _Counts()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # of the timer; a door may serve several, and outlive them

    def notice(self, event: Event) -> None:
        """Count it, if it is an answer."""
        self._observer.notice(event)
        if not isinstance(event, Handled) or event.ending not in _PLACES:
            return
        self._counts.add(event)
        if self._timer is None or self._loop is None or not self._loop.is_running():
            self._loop = asyncio.get_running_loop()
            self._timer = self._loop.call_later(self._every_s, self._write)

    async def flush(self) -> None:
        """Write what was counted, before the store is closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if counted := self._counts.take():
            with suppress(StoreError):
                await self._store.submit(counted)

    def _write(self) -> None:
        self._timer = None
        if counted := self._counts.take():
            self._store.submit(counted).add_done_callback(_ignore)


def _ignore(written: asyncio.Future[Any]) -> None:
    """Have seen the error, if there was one."""
    if not written.cancelled():
        written.exception()


_ALL: weakref.WeakSet[BlockingTally] = weakref.WeakSet()


def _after_fork() -> None:
    for tally in list(_ALL):
        tally.forget()


os.register_at_fork(after_in_child=_after_fork)


class BlockingTally:
    """Counts on whatever thread it is told, and writes on one of its own.

    Args:
        observer: told of everything.
        store: where the counts go.
        every_s: how long counts are kept here.
    """

    def __init__(self, observer: Observer, store: Store, every_s: float = EVERY_S) -> None:
        self._observer = observer
        self._store = store
        self._every_s = every_s
        self.forget()
        _ALL.add(self)

    def forget(self) -> None:
        """Begin anew; in the child of a fork the counts are the parent's to write, and its timer does not run."""
        self._lock = threading.Lock()
        self._counts = _Counts()
        self._timer: threading.Timer | None = None

    def notice(self, event: Event) -> None:
        """Count it, if it is an answer."""
        self._observer.notice(event)
        if not isinstance(event, Handled):
            return
        with self._lock:
            if self._counts.add(event) and self._timer is None:
                self._timer = threading.Timer(self._every_s, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Write what was counted; also for before the store is closed."""
        with self._lock:
            counted = self._counts.take()
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if counted is not None:
            with suppress(StoreError):
                self._store.perform(counted)
