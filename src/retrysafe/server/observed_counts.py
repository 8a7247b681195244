"""What a process has counted of observed requests, and how it comes into the store."""

from __future__ import annotations

import os
import threading

from retrysafe.model import Claim, Found
from retrysafe.protocol.observing import COUNTS_ROUTE, RouteCounts, Sight, encoded
from retrysafe.protocol.transitions import ANSWER_DAYS_KEPT, DAY_MS, ClaimIfAbsent, KeepJournalIfHeld
from retrysafe.stores.contract import Store

Sums = dict[str, dict[Sight, int]]

_NO_FINGERPRINT = bytes(33)


class CountKeeper:
    """Counts by route. They are written whole, in place of what this process wrote before.

    So each process writes to a record of its own, and to a new one each day, by the store's clock: what is older than
    anybody asks for is forgotten with its record.

    Args:
        store: where they go; open when they are written.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._counting = threading.Lock()
        self._writing = threading.Lock()
        self._sums: Sums = {}
        self._changed: set[str] = set()
        self._times_ms: dict[str, tuple[int, int]] = {}
        self._claim = _new_claim()
        self._written: Sums | None = {}  # what is in the record; None: nobody knows, for the reply was lost

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
        found = self._found()
        if self._written is not None and found.now_ms - found.record.created_at_ms >= DAY_MS:
            self._begin_anew(self._written)
            found = self._found()
        with self._counting:
            changed, self._changed = self._changed, set()
            sums = {route: dict(counts) for route, counts in self._sums.items()}
        for route in changed:
            first_ms, _ = self._times_ms.get(route, (found.now_ms, 0))
            self._times_ms[route] = first_ms, found.now_ms
        counts = [RouteCounts(route, counts, *self._times_ms[route]) for route, counts in sums.items()]
        kept, self._written = False, None
        try:
            kept = self._store.perform(KeepJournalIfHeld(self._claim, encoded(counts)))
        finally:
            if not kept:
                with self._counting:
                    self._changed |= changed
        self._written = sums if kept else {}
        if not kept:  # somebody has taken the record away: they go into another, the next time
            self._claim = _new_claim()

    def _found(self) -> Found:
        """The record of this process, made if it is not there."""
        claiming = ClaimIfAbsent(
            self._claim.record_id, self._claim.token, _NO_FINGERPRINT, DAY_MS, ANSWER_DAYS_KEPT * DAY_MS, COUNTS_ROUTE
        )
        return self._store.perform(claiming)

    def _begin_anew(self, written: Sums) -> None:
        """Leave the record as it is, and count on in another, from what is not in it."""
        with self._counting:
            for route, counts in written.items():
                rest = {sight: count - counts.get(sight, 0) for sight, count in self._sums.pop(route).items()}
                if any(rest.values()):
                    self._sums[route] = rest
        self._times_ms.clear()
        self._claim, self._written = _new_claim(), {}


def _new_claim() -> Claim:
    return Claim(os.urandom(32), os.urandom(16), 1)
