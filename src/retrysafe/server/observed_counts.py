"""What a process has counted of observed requests, and how it comes into the store."""

from __future__ import annotations

import os
import threading

from retrysafe.model import Claim
from retrysafe.protocol.observing import COUNTS_ROUTE, RouteCounts, Sight, encoded
from retrysafe.protocol.transitions import ANSWER_DAYS_KEPT, DAY_MS, ClaimIfAbsent, KeepJournalIfHeld
from retrysafe.stores.contract import Store

_NO_FINGERPRINT = bytes(33)


class CountKeeper:
    """Counts by route. They are written whole, in place of what this process wrote before.

    So each process writes to a record of its own, and a new one each day, by the store's clock: what is older than
    anybody asks for is forgotten with its record.

    Args:
        store: where they go; open when they are written.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._counting = threading.Lock()
        self._writing = threading.Lock()
        self._sums: dict[str, dict[Sight, int]] = {}
        self._changed: set[str] = set()
        self._times_ms: dict[str, tuple[int, int]] = {}
        self._claim = _new_claim()

    def count(self, route: str, sight: Sight) -> None:
        """One more."""
        with self._counting:
            sums = self._sums.setdefault(route, {})
            sums[sight] = sums.get(sight, 0) + 1
            self._changed.add(route)

    @property
    def unwritten(self) -> int:
        """In how many routes something was counted that is not in the store."""
        return len(self._changed)

    def write(self) -> None:
        """Write what was counted, if something was.

        Raises:
            StoreError: the store failed; nothing is lost, the next time it is written with what came in between.
        """
        with self._writing:
            if self._changed:
                self._write()

    def _write(self) -> None:
        claiming = ClaimIfAbsent(
            self._claim.record_id, self._claim.token, _NO_FINGERPRINT, DAY_MS, ANSWER_DAYS_KEPT * DAY_MS, COUNTS_ROUTE
        )
        found = self._store.perform(claiming)
        with self._counting:
            changed, self._changed = self._changed, set()
            sums = {route: dict(counts) for route, counts in self._sums.items()}
        for route in changed:
            first_ms, _ = self._times_ms.get(route, (found.now_ms, 0))
            self._times_ms[route] = first_ms, found.now_ms
        counts = [RouteCounts(route, counts, *self._times_ms[route]) for route, counts in sums.items()]
        kept = False
        try:
            kept = self._store.perform(KeepJournalIfHeld(self._claim, encoded(counts)))
        finally:
            if not kept:  # the store failed, or somebody has taken the record away: then they go into another
                with self._counting:
                    self._changed |= changed
        if not kept or found.now_ms - found.record.created_at_ms >= DAY_MS:
            self._claim = _new_claim()
            if kept:
                self._begin_anew(sums)

    def _begin_anew(self, written: dict[str, dict[Sight, int]]) -> None:
        """Count on from what was not written into the record that is full."""
        with self._counting:
            for route, counts in written.items():
                rest = {sight: count - counts.get(sight, 0) for sight, count in self._sums.pop(route).items()}
                if any(rest.values()):
                    self._sums[route] = rest
            self._times_ms.clear()


def _new_claim() -> Claim:
    return Claim(os.urandom(32), os.urandom(16), 1)
