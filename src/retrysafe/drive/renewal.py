"""Renews the leases of the handlers that are running on event loops (contract R40).

One timer of a loop serves all of its handlers, so that a handler which is quicker than a third of its lease costs an
entry in a table and no timer of its own.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

from retrysafe.drive import RENEWALS_PER_LEASE
from retrysafe.observe import ClaimLost, Observer, Overdue, StoreFailed, name_of
from retrysafe.protocol.effects import Execute
from retrysafe.protocol.transitions import RenewIfHeld
from retrysafe.stores.contract import Store

_log = logging.getLogger("retrysafe")

_MS_A_RENEWAL = 1_000 * RENEWALS_PER_LEASE  # milliseconds of a lease to seconds from one renewal to the next


class Overdueable(Protocol):
    """What is told when its handler had all the time it may have."""

    def overdue(self) -> None:
        """The claim is not renewed any further."""


class _Running:
    """A handler that is running: when its claim is due, and until when it may be renewed."""

    __slots__ = ("due_s", "effect", "end_s", "exchange", "loop")

    def __init__(self, effect: Execute, exchange: Overdueable, loop: asyncio.AbstractEventLoop) -> None:
        policy, now_s = effect.policy, loop.time()
        self.effect = effect
        self.exchange = exchange
        self.loop = loop
        self.due_s = now_s + policy.lease_ms / _MS_A_RENEWAL
        self.end_s = now_s + policy.execution_max_ms / 1_000


class Renewals:
    """The claims of running handlers. A door may serve several loops, each on its thread, and outlive them.

    Args:
        store: of their records.
        observer: told of what goes wrong.
    """

    def __init__(self, store: Store, observer: Observer) -> None:
        self._store = store
        self._observer = observer
        self._running: dict[bytes, _Running] = {}
        # With when it is due: what a loop gives for a time that is over need not know that, and uvloop's does not.
        self._timers: dict[asyncio.AbstractEventLoop, tuple[float, asyncio.Handle]] = {}

    def start(self, effect: Execute, exchange: Overdueable) -> None:
        """Renew this claim from now on."""
        loop = asyncio.get_running_loop()
        running = self._running[effect.claim.token] = _Running(effect, exchange, loop)
        timer = self._timers.get(loop)
        if timer is None or running.due_s < timer[0]:
            self._wake_at(running.due_s, loop)

    def stop(self, effect: Execute) -> None:
        """Renew it no further; on any thread, and safe to repeat."""
        self._running.pop(effect.claim.token, None)

    def _wake_at(self, when_s: float, loop: asyncio.AbstractEventLoop) -> None:
        timer = self._timers.pop(loop, None)
        if timer is not None:
            timer[1].cancel()
        for closed in [known for known in list(self._timers) if known.is_closed()]:
            self._timers.pop(closed, None)
        self._timers[loop] = when_s, loop.call_at(when_s, self._renew_due)

    def _renew_due(self) -> None:
        loop = asyncio.get_running_loop()
        del self._timers[loop]
        now_s = loop.time()
        for running in self._running_on(loop):
            if running.due_s <= now_s:
                try:
                    self._renew(running, now_s)
                except Exception:  # noqa: BLE001 - an observer's, say: what one raises is not to cost the others their claims
                    _log.exception("the claim of record %s was not renewed", name_of(running.effect.claim.record_id))
        if left := self._running_on(loop):
            self._wake_at(min(running.due_s for running in left), loop)

    def _running_on(self, loop: asyncio.AbstractEventLoop) -> list[_Running]:
        return [running for running in list(self._running.values()) if running.loop is loop]

    def _renew(self, running: _Running, now_s: float) -> None:
        effect = running.effect
        if now_s >= running.end_s:
            self.stop(effect)
            self._observer.notice(Overdue(name_of(effect.claim.record_id)))
            running.exchange.overdue()
            return
        running.due_s = now_s + effect.policy.lease_ms / _MS_A_RENEWAL
        renewal = self._store.submit(
            RenewIfHeld(effect.claim, effect.policy.lease_ms, effect.policy.unknown_retention_ms)
        )
        renewal.add_done_callback(lambda done: self._renewed(effect, done))

    def _renewed(self, effect: Execute, renewal: asyncio.Future[Any]) -> None:
        if renewal.cancelled():
            return
        if error := renewal.exception():
            self._observer.notice(StoreFailed("RenewIfHeld", str(error)))
        elif not renewal.result() and effect.claim.token in self._running:
            self.stop(effect)
            self._observer.notice(ClaimLost(name_of(effect.claim.record_id)))
