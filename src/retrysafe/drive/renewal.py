"""Renews the leases of the handlers that are running on an event loop (contract R40).

One timer serves all of them, so that a handler which is quicker than a third of its lease costs an
entry in a table and no timer of its own.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from retrysafe.drive import RENEWALS_PER_LEASE
from retrysafe.observe import ClaimLost, Observer, Overdue, StoreFailed, name_of
from retrysafe.protocol.effects import Execute, RenewIfHeld
from retrysafe.stores.contract import Store


class Overdueable(Protocol):
    """What is told when its handler had all the time it may have."""

    def overdue(self) -> None:
        """The claim is not renewed any further."""


class _Running:
    """A handler that is running: when its claim is due, and until when it may be renewed."""

    __slots__ = ("due_s", "effect", "end_s", "exchange")

    def __init__(self, effect: Execute, exchange: Overdueable, now_s: float) -> None:
        self.effect = effect
        self.exchange = exchange
        self.due_s = now_s + _every_s(effect)
        self.end_s = now_s + effect.policy.execution_max_ms / 1_000


class Renewals:
    """The claims of running handlers.

    Args:
        store: of their records.
        observer: told of what goes wrong.
    """

    def __init__(self, store: Store, observer: Observer) -> None:
        self._store = store
        self._observer = observer
        self._running: dict[bytes, _Running] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # of the timer; a door may outlive its loop

    def start(self, effect: Execute, exchange: Overdueable) -> None:
        """Renew this claim from now on."""
        loop = asyncio.get_running_loop()
        running = self._running[effect.claim.token] = _Running(effect, exchange, loop.time())
        if self._timer is None or self._loop is not loop or running.due_s < self._timer.when():
            self._wake_at(running.due_s, loop)

    def stop(self, effect: Execute) -> None:
        """Its outcome is settled, or nobody can settle it."""
        self._running.pop(effect.claim.token, None)

    def _wake_at(self, when_s: float, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._loop = loop.call_at(when_s, self._renew_due), loop

    def _renew_due(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        now_s = loop.time()
        for running in [running for running in self._running.values() if running.due_s <= now_s]:
            self._renew(running, now_s)
        if self._running:
            self._wake_at(min(running.due_s for running in self._running.values()), loop)

    def _renew(self, running: _Running, now_s: float) -> None:
        effect = running.effect
        if now_s >= running.end_s:
            self.stop(effect)
            self._observer.notice(Overdue(name_of(effect.claim.record_id)))
            running.exchange.overdue()
            return
        running.due_s = now_s + _every_s(effect)
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


def _every_s(effect: Execute) -> float:
    return effect.policy.lease_ms / 1_000 / RENEWALS_PER_LEASE
