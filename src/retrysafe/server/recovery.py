"""What a door does about operations that nobody drives any more, and what its settings must be for that."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from retrysafe.errors import ConfigurationError, StoreError
from retrysafe.observe import Observer, StoreFailed
from retrysafe.operation.recovery import Completer, Counts, Means, Reconcile, Reconciler, Report, reap
from retrysafe.server.redrive import Redrive

_log = logging.getLogger("retrysafe")


class Recovery:
    """What a door does about operations that nobody drives any more.

    Args:
        redrive: sends requests again.
        means: of the door.
        reconcile: asked about records whose outcome is unknown; None: nobody is, and nothing is reaped.
        observer: told when the store fails.
    """

    def __init__(self, redrive: Redrive, means: Means, reconcile: Reconcile | None, observer: Observer) -> None:
        self._redrive = redrive
        self._means = means
        self._reconcile = reconcile
        self._observer = observer

    async def once(self, told: Callable[[Report], None]) -> Report:
        """Complete, reap and reconcile, once.

        Args:
            told: now and then, with what was done up to then.

        Raises:
            StoreError: the store failed; what was done by then stays so.
        """
        counts: Counts = Counter()

        def note(more: Counts) -> None:
            counts.update(more)
            told(Report(dict(counts)))

        if self._redrive.can_redrive:
            await Completer(self._redrive, self._means).run(note)
        if self._reconcile is not None:
            await reap(self._redrive, self._means, note)
            await Reconciler(self._redrive, self._means, self._reconcile).run(note)
        return Report(dict(counts))

    async def run(self, every_s: float, told: Callable[[Report], None]) -> None:
        """Again and again, until it is cancelled; a store that is away is asked again the next time.

        Args:
            every_s: about how long to wait in between; hosts that were started together drift apart.
            told: as for `once`.
        """
        while True:
            await asyncio.sleep(every_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing
            try:
                await self.once(told)
            except StoreError as error:
                self._observer.notice(StoreFailed("recovery", str(error)))
            except Exception:  # noqa: BLE001 - of one pass: the next one is to come
                _log.exception("a pass of recovery failed")


class RecoveryOnALoop:
    """Looks again and again beside the requests of an event loop, which may end before the door does.

    Args:
        interval_s: about how long to wait between two passes; None: it never looks.
    """

    def __init__(self, interval_s: float | None) -> None:
        self._interval_s = interval_s
        self._looking: asyncio.Task[None] | None = None

    def ensure(self, make: Callable[[], Recovery]) -> None:
        """See to it that somebody looks: on the running loop, unless there is another that still does."""
        looking = self._looking
        if self._interval_s is None or (looking and not (looking.done() or looking.get_loop().is_closed())):
            return
        work = make().run(self._interval_s, lambda _: None)
        self._looking = asyncio.get_running_loop().create_task(work)

    def never(self) -> None:
        """Somebody else looks."""
        self._interval_s = None

    async def end(self) -> None:
        """Stop looking."""
        looking, self._looking = self._looking, None
        if looking is None or looking.get_loop().is_closed():
            return
        if looking.get_loop() is asyncio.get_running_loop():
            looking.cancel()
            await asyncio.wait({looking})
        else:
            with suppress(RuntimeError):  # that loop is over in this moment
                looking.get_loop().call_soon_threadsafe(looking.cancel)


class RecoveryThread(threading.Thread):
    """Looks for operations that nobody drives any more, on an event loop of its own.

    Args:
        recovery: of a door.
        interval_s: about how long to wait between two passes.
    """

    def __init__(self, recovery: Recovery, interval_s: float) -> None:
        super().__init__(name="retrysafe recovery", daemon=True)
        self._recovery = recovery
        self._interval_s = interval_s
        self._loop = asyncio.new_event_loop()
        self._passing: asyncio.Task[None] | None = None

    def run(self) -> None:
        """Until it is ended."""
        self._passing = self._loop.create_task(self._recovery.run(self._interval_s, lambda _: None))
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._passing)
        self._loop.close()

    def end(self) -> None:
        """Stop looking; requests that are being sent again run to their end."""
        with suppress(RuntimeError):  # the loop is over already
            self._loop.call_soon_threadsafe(self._cancel)
        if self.is_alive():
            self.join(_PATIENCE_S)

    def _cancel(self) -> None:
        if self._passing is not None:
            self._passing.cancel()


_PATIENCE_S = 5.0


class RecoveryOnThreads:
    """Looks again and again in each process of a blocking door: a thread does not follow a fork.

    Args:
        make: the recovery of the door, which is open.
        interval_s: about how long to wait between two passes; None: it never looks.
    """

    def __init__(self, make: Callable[[], Recovery], interval_s: float | None) -> None:
        self._make = make
        self._interval_s = interval_s
        self._starting = threading.Lock()
        self._thread: RecoveryThread | None = None

    def ensure(self) -> None:
        """See to it that this process looks; called with each request."""
        if self._interval_s is None or self._is_looking():
            return
        with self._starting:
            if not self._is_looking():
                self._thread = RecoveryThread(self._make(), self._interval_s)
                self._thread.start()

    def _is_looking(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def end(self) -> None:
        """Stop looking."""
        if self._thread is not None:
            self._thread.end()


def check_recovery(
    scope: object,
    reauthenticate: object,
    reconcile: object,
    encryption_keys: object,
    complete_abandoned: object,
) -> None:
    """Whether these settings of a door go together.

    Raises:
        ConfigurationError: with what is wrong.
    """
    faults = []
    if reauthenticate is not None and encryption_keys is None:
        faults.append(
            "reauthenticate is set, so requests are stored, with the keys that clients sent, and these never stand in "
            "a store in the clear: set encryption_keys, or leave reauthenticate out"
        )
    if reauthenticate is not None and scope == "authorization":
        faults.append(
            'reauthenticate is set, so the account is stored with each request, and scope "authorization" makes a '
            "credential of it; take the account from what stays the same when a credential is rotated"
        )
    if complete_abandoned is not None and reauthenticate is None and reconcile is None:
        faults.append("complete_abandoned is set, and neither reauthenticate nor reconcile: there is nothing to do")
    if faults:
        raise ConfigurationError(faults)
