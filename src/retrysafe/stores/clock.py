"""Time in whole milliseconds: this host's, handed in so that tests own it; and a server's, as it was told."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable

Clock = Callable[[], int]


def host_clock() -> int:
    """This host's wall clock in milliseconds since 1970, UTC. It may step back; a store does not."""
    return time.time_ns() // 1_000_000  # noqa: TID251 a store on this host has no other clock


class Told:
    """The latest time that a server told this process, whose clock may be set back.

    A store hands it back with each transition. So for one process the store's time never goes back, and what it judges
    by a time that it was told, the server does not judge by an earlier one.
    """

    def __init__(self) -> None:
        self.now_ms = 0
        self.renew()
        _ALL.add(self)

    def hear(self, times_ms: Iterable[int]) -> None:
        """What the answers said. They may come out of order, and on any thread."""
        latest_ms = max(times_ms, default=0)
        with self._lock:
            self.now_ms = max(self.now_ms, latest_ms)

    def renew(self) -> None:
        """In a child of a fork: some thread of the parent may have held the lock in that moment."""
        self._lock = threading.Lock()


_ALL: weakref.WeakSet[Told] = weakref.WeakSet()


def _after_fork() -> None:
    for told in list(_ALL):
        told.renew()


os.register_at_fork(after_in_child=_after_fork)
