"""Counts what protection would have done with requests, off their path: `mode="observe"`, for every door.

Threads of a `Watcher` ask the store what a request was: those of one key one after the other, in the order in which
they came. What waits for them is bounded, and what does not fit is counted as lost. So no failure of the store, and no
slowness of it, reaches a request; and nothing is written that would outlive the process only by luck: what was counted
goes to the store every ten seconds, and when the door closes.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from math import inf
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from retrysafe.drive.step import first, sent
from retrysafe.errors import StoreError
from retrysafe.model import Head
from retrysafe.observe import Observer, StoreFailed
from retrysafe.operation.noted import begin_noting
from retrysafe.protocol.effects import Effect, Ended, Flow, Transition
from retrysafe.protocol.key import Absent, Malformed, is_128_bit, parse_key
from retrysafe.protocol.observing import Place, Seen, Sight, note_end, see
from retrysafe.protocol.snapshot import Encryption
from retrysafe.server.observed_counts import CountKeeper
from retrysafe.server.routes import Route
from retrysafe.server.sighting import Sighting
from retrysafe.stores.contract import Store

T = TypeVar("T")
Work = Callable[[], None]

_log = logging.getLogger("retrysafe")

# In the connection scope, or the environ, of a request that a door observes: one further in leaves it alone.
OBSERVED = "retrysafe.observed"

LANES = 4
WAITING_MAX = 10_000
"""So many requests may wait in each lane."""
HELD_BYTES_MAX = 64 << 20
"""Contents that are held to be compared, of all requests together."""
WRITTEN_EVERY_S = 10.0
PATIENCE_S = 5.0
"""How long a door that closes waits for what is still to be asked, and as long again for the counts to be written."""
_PAUSE_S = 1.0  # in which a store that failed is not asked


class Watcher:
    """What a door has to count with. Its threads begin with the first request, in each process.

    Args:
        store: of the records; it is opened here, because a request cannot wait for that.
        given_secret: the operator's, if there is one.
        namespace: of the deployment.
        encryption: of what is stored.
        anonymous: the scope is no account; keys must be unguessable (contract R17).
        observer: told when the store begins to fail.
    """

    def __init__(  # noqa: PLR0913 - the settings of a door
        self,
        store: Store,
        given_secret: bytes | None,
        namespace: str,
        encryption: Encryption | None,
        observer: Observer,
        *,
        anonymous: bool,
    ) -> None:
        self._store = store
        self._given_secret = given_secret
        self._namespace = namespace
        self._encryption = encryption
        self._anonymous = anonymous
        self._observer = observer
        self.begin_anew()
        _ALL.add(self)

    def begin_anew(self) -> None:
        """Count from zero; in the child of a fork the counts are the parent's to write, and its threads do not run."""
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._counts = CountKeeper(self._store)
        self._lanes: list[_Lane] = []
        self._writer: _Writer | None = None
        self._held_bytes = 0
        self._place: Place | None = None
        self._failed_at_s = -inf
        self._is_failing = False

    # --- on the path of requests ------------------------------------------------------------------

    def look_at(self, route: Route, head: Head) -> Sighting | None:
        """What a door is to tell about a request; None if it is counted already, because it has no good key."""
        key = parse_key(head, route.policy)
        if isinstance(key, Absent):
            self.count(route, Sight.MISSING)
            return None
        if isinstance(key, Malformed) or (self._anonymous and not is_128_bit(key)):
            self.count(route, Sight.MALFORMED)
            return None
        return Sighting(self, route, head, key, begin_noting(marked=route.marked))

    def count(self, route: Route, sight: Sight) -> None:
        """One more of these."""
        if self._writer is None:
            self._start()
        self._count(route, sight)

    def _count(self, route: Route, sight: Sight) -> None:
        """The same, and nothing is begun by it: what a lane counts last, who closes the door writes."""
        self._counts.count(route.entry, sight)
        writer = self._writer
        if writer is not None and not writer.changed.is_set():
            writer.changed.set()

    def hold(self, size: int) -> bool:
        """Whether so many bytes of a content may be held; then they are, until `let_go`."""
        with self._lock:
            if self._held_bytes + size > HELD_BYTES_MAX:
                return False
            self._held_bytes += size
            return True

    def let_go(self, size: int) -> None:
        """So many bytes are held no longer."""
        if size:
            with self._lock:
                self._held_bytes -= size

    def begin(self, sighting: Sighting, seen: Seen) -> bool:
        """Ask, soon, what the request is; whether there is room for it."""
        lane = self._lane_of(sighting)
        if lane is None or lane.is_full():
            return False
        lane.put(partial(self._see, sighting, seen))
        return True

    def end(self, sighting: Sighting, ended: Ended) -> None:
        """Note, soon, how it ended."""
        if (lane := self._lane_of(sighting)) is not None:
            lane.put(partial(self._note_end, sighting, ended))

    def _lane_of(self, sighting: Sighting) -> _Lane | None:
        """One for each key, so that nothing of it overtakes anything; None if there is no thread to be had."""
        lanes = self._lanes or self._start()
        return lanes[hash(sighting.key.text) % len(lanes)] if lanes else None

    def _start(self) -> list[_Lane]:
        with self._lock:
            if self._writer is None:
                try:
                    self._writer = _Writer(self._write)
                    self._lanes = [_Lane() for _ in range(LANES)]
                except RuntimeError as error:  # no request fails because the system has no more threads
                    _log.warning("requests are not observed: %s", error)
            return self._lanes

    @property
    def has_begun(self) -> bool:
        """Whether there is anything to close."""
        return self._writer is not None

    # --- on threads of its own --------------------------------------------------------------------

    def _see(self, sighting: Sighting, seen: Seen) -> None:
        sight, claim = Sight.LOST, None
        try:
            if (place := self._open()) is not None:
                sight, claim = self._ask(see(seen, place)) or (sight, claim)
        finally:
            sighting.claim = claim
            sighting.let_go()
            self._count(sighting.route, sight)

    def _note_end(self, sighting: Sighting, ended: Ended) -> None:
        if sighting.claim is not None and (place := self._open()) is not None:
            self._ask(note_end(sighting.claim, ended, sighting.head, sighting.route.policy, place))

    def _open(self) -> Place | None:
        """Where to look; None while the store is away. It is asked anew after a pause."""
        if time.monotonic() - self._failed_at_s < _PAUSE_S:
            return None
        with self._opening:
            if self._place is None:
                try:
                    secret = self._store.open(self._given_secret)
                except StoreError as error:
                    self._fail("open", error)
                else:
                    self._place = Place(self._namespace, secret, self._encryption)
        return self._place

    def _ask(self, flow: Flow[T]) -> T | None:
        """Run a flow of nothing but transitions; None if the store failed."""
        step: Effect[Any] | T = first(flow)
        while isinstance(step, Transition):
            try:
                answer = self._store.perform(step)
            except StoreError as error:
                self._fail(type(step).__name__, error)
                return None
            step = sent(flow, answer)
        self._is_failing = False
        return step  # type: ignore[return-value]  # what is no effect is what the flow returned

    def _fail(self, operation: str, error: StoreError) -> None:
        """Say so once for each time that the store is away, and leave it alone for a moment."""
        self._failed_at_s = time.monotonic()
        if not self._is_failing:
            self._is_failing = True
            self._observer.notice(StoreFailed(operation, f"{error}; requests are not delayed, and not observed"))

    def _write(self) -> bool:
        """Write what was counted; whether there is nothing left. While the store is away, it stays here."""
        if self._open() is not None:
            try:
                self._counts.write()
            except StoreError as error:
                self._fail("observe", error)
        return not self._counts.unwritten

    def close(self) -> None:
        """Ask what is still to be asked, and write the counts, each with a bound. The next request begins anew."""
        with self._lock:
            lanes, self._lanes = self._lanes, []
            writer, self._writer = self._writer, None
        if writer is None:
            return
        until_s = time.monotonic() + PATIENCE_S
        for lane in lanes:
            lane.end(until_s)
        self._failed_at_s = inf  # what waits even now is lost, and said to be
        for lane in lanes:
            lane.drain()
        self._failed_at_s = -inf
        if not writer.end(time.monotonic() + PATIENCE_S):
            _log.warning("what was observed last could not be written: %s is away", self._store.name)
        self._place = None


class _Lane:
    """A thread and the work that waits for it, which is done in its order."""

    def __init__(self) -> None:
        self._waiting: SimpleQueue[Work | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="retrysafe observe", daemon=True)
        self._thread.start()

    def is_full(self) -> bool:
        """Whether nothing should be begun that waits behind the rest."""
        return self._waiting.qsize() >= WAITING_MAX

    def put(self, work: Work) -> None:
        """Have it done."""
        self._waiting.put(work)

    def end(self, until_s: float) -> None:
        """Wait until all is done that waits now, but not for longer than that time of the monotonic clock."""
        self._waiting.put(None)
        self._thread.join(max(0.0, until_s - time.monotonic()))

    def drain(self) -> None:
        """Do here what waits still, while the thread is held up; then it ends."""
        with suppress(Empty):
            while True:
                if (work := self._waiting.get_nowait()) is not None:
                    work()
        self._waiting.put(None)

    def _run(self) -> None:
        while (work := self._waiting.get()) is not None:
            try:
                work()
            except Exception:  # noqa: BLE001 - a defect of ours, for the log, and for nobody's request
                _log.exception("a request could not be observed")


class _Writer:
    """A thread that writes what was counted, some time after it was, and once more when it ends."""

    def __init__(self, write: Callable[[], bool]) -> None:
        self.changed = threading.Event()
        self._is_done = False
        self._ending = threading.Event()
        self._write = write
        self._thread = threading.Thread(target=self._run, name="retrysafe observed counts", daemon=True)
        self.changed.set()
        self._thread.start()

    def end(self, until_s: float) -> bool:
        """Have it write the rest, and wait no longer than that for it; whether all is written.

        Whoever closes a door writes nothing itself: a store that hangs would keep its process from ending.
        """
        self._ending.set()
        self.changed.set()
        self._thread.join(max(0.0, until_s - time.monotonic()))
        return self._is_done

    def _run(self) -> None:
        while not self._ending.is_set():
            self.changed.wait()
            self._ending.wait(WRITTEN_EVERY_S)
            self.changed.clear()
            if not self._ending.is_set() and not self._write():
                self.changed.set()
        self._is_done = self._write()


_ALL: weakref.WeakSet[Watcher] = weakref.WeakSet()


def _after_fork() -> None:
    for watcher in list(_ALL):
        watcher.begin_anew()


def _close_all() -> None:
    for watcher in list(_ALL):
        watcher.close()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_close_all)
