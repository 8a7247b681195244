"""Counts answers by route, and writes the counts to the store in batches: a replay itself writes nothing.

A process that is killed loses what it counted since the last batch. So does one whose store is away when a
batch is due: it may or may not have been written, and is not written twice.
"""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import suppress

from retrysafe.errors import StoreError
from retrysafe.observe import Event, Handled, Observer
from retrysafe.protocol.effects import AnswerCount, CountAnswers
from retrysafe.protocol.flow import Ending
from retrysafe.stores.contract import Store

EVERY_S = 10.0
_PLACES: dict[str, int] = {Ending.RECORDED: 0, Ending.MISJUDGED: 0, Ending.REPLAYED: 1}

_ALL: weakref.WeakSet[Tally] = weakref.WeakSet()


def _after_fork() -> None:
    for tally in list(_ALL):
        tally.forget()


os.register_at_fork(after_in_child=_after_fork)


class Tally:
    """An observer that counts, and tells the one that it was given.

    Args:
        observer: told of everything.
        store: where the counts go; opened before anything is counted.
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
        self._counts: dict[str, list[int]] = {}
        self._timer: threading.Timer | None = None

    def notice(self, event: Event) -> None:
        """Count it, if it is an answer; on whatever thread it happens."""
        self._observer.notice(event)
        if isinstance(event, Handled) and (place := _PLACES.get(event.ending)) is not None:
            with self._lock:
                self._counts.setdefault(event.route, [0, 0])[place] += 1
                if self._timer is None:
                    self._timer = threading.Timer(self._every_s, self.flush)
                    self._timer.daemon = True
                    self._timer.start()

    def flush(self) -> None:
        """Write what was counted; blocking."""
        with self._lock:
            counts, self._counts = self._counts, {}
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if counts:
            batch = tuple(AnswerCount(route, *sums) for route, sums in sorted(counts.items()))
            with suppress(StoreError):
                self._store.perform(CountAnswers(batch))
