"""Runs a flow on the calling thread, for blocking handlers. Leases are renewed on a thread of their own."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from retrysafe.drive import RENEWALS_PER_LEASE, RETRY_FIRST_S, RETRY_MOST_S, SETTLE_S
from retrysafe.drive.step import first, sent, thrown
from retrysafe.drive.waiting import BlockingWaiting
from retrysafe.errors import StoreError
from retrysafe.model import Request
from retrysafe.observe import ClaimLost, Handled, Observer, Overdue, StoreFailed, Unrecorded, name_of
from retrysafe.protocol import effects, transitions
from retrysafe.protocol.answers import Answer, BreakOff, Deliver, Ending
from retrysafe.protocol.effects import Effect, Execute, Flow, Outcome, Settled, Transition, Unread
from retrysafe.protocol.fingerprint import fingerprint_of
from retrysafe.stores.contract import Store

_log = logging.getLogger("retrysafe")


class Exchange(Protocol):
    """One request at a blocking door, as the driver needs it."""

    route: str

    def scope(self) -> str | None:
        """The account that the request belongs to."""

    def request(self, body_bytes_max: int) -> Request | Unread:
        """The request with its whole content."""

    def authorize(self) -> bool:
        """May the caller see the stored answer now?"""

    def execute(self, effect: Execute) -> Outcome:
        """Run the handler up to its last piece of response. Never raises an `Exception`."""


class Driver:
    """Drives flows with one store, each on the thread that calls `run`.

    Args:
        store: opened.
        observer: told of what happens.
    """

    def __init__(self, store: Store, observer: Observer) -> None:
        self._store = store
        self.observer = observer
        self.renewals = Renewals(store, observer)
        self.waiting = BlockingWaiting(store, observer)

    def run(self, flow: Flow[Answer], exchange: Exchange) -> Answer:
        """Drive one request to its end; the caller sends the answer."""
        held = self.start(flow, exchange)
        if not isinstance(held, Held):
            return held
        try:
            outcome = exchange.execute(held.effect)
        except BaseException:
            held.let_go()
            raise
        return held.conclude(outcome)

    def start(self, flow: Flow[Answer], exchange: Exchange) -> Held | Answer:
        """Drive one request up to where its handler is to run, for doors that run it themselves.

        Returns:
            What is held from there on; or the answer, if no handler is to run.
        """
        step = first(flow)
        while isinstance(step, Effect) and not isinstance(step, Execute):
            step = self.advance(flow, step, exchange)
        if isinstance(step, Execute):
            held = Held(self, flow, step, exchange)
            try:
                self.renewals.start(step)
            except BaseException:  # no thread is to be had: nothing has run, and the next attempt may
                held.conclude(effects.Raised(effects.Fate.NOT_RUN))
                raise
            return held
        self.observer.notice(Handled(step.ending, exchange.route))
        return step

    def advance(self, flow: Flow[Answer], effect: Effect[Any], exchange: Exchange) -> Effect[Any] | Answer:
        """Perform one effect and give the flow its answer."""
        try:
            answer = self._perform(effect, exchange)
        except StoreError as error:
            self.observer.notice(StoreFailed(type(effect).__name__, str(error)))
            return thrown(flow, error)
        return sent(flow, answer)

    def _perform(self, effect: Effect[Any], exchange: Exchange) -> Any:
        match effect:
            case effects.Admit(body_bytes_max):
                scope = exchange.scope()
                request = Unread.NO_ACCOUNT if scope is None else exchange.request(body_bytes_max)
                return request if isinstance(request, Unread) else (scope, request)
            case effects.Claiming():
                return self._claim(effect)
            case Transition():
                return self._store.perform(effect)
            case effects.TakeFingerprint(request, policy, secret):
                return fingerprint_of(request, policy, secret)
            case effects.Settle(transition, lease_ms):
                return self.settle(transition, lease_ms)
            case effects.Wait():
                return self.waiting.wait(effect)
            case effects.ResolveScope():
                return exchange.scope()
            case effects.Authorize():
                return exchange.authorize()
            case _:
                raise AssertionError(f"an effect that this driver does not know: {type(effect).__name__}")

    def _claim(self, claiming: effects.Claiming[Any]) -> Any:
        """Claim; when the answer reaches nobody, take the claim back."""
        try:
            return self._store.perform(claiming)
        except BaseException:
            lease_end_s = time.monotonic() + claiming.lease_ms / 1_000
            self._errand(lambda: self._settle_until(claiming.undo(), lease_end_s))
            raise

    def settle(self, transition: Transition[bool], lease_ms: int) -> Settled:
        """Settle while the client waits; when the store stays away, go on without the client."""
        began_s = time.monotonic()
        settled = self._settle_until(transition, began_s + SETTLE_S)
        if settled is Settled.OPEN:
            self._errand(lambda: self._settle_late(transition, began_s + lease_ms / 1_000))
        return settled

    def _settle_late(self, transition: Transition[bool], deadline_s: float) -> None:
        if self._settle_until(transition, deadline_s) is Settled.OPEN:
            claim = getattr(transition, "claim", None)
            self.observer.notice(Unrecorded(name_of(claim.record_id) if claim is not None else "?"))

    def _settle_until(self, transition: Transition[bool], deadline_s: float) -> Settled:
        return settle_until(self._store, self.observer, transition, deadline_s)

    @staticmethod
    def _errand(work: Callable[[], Any]) -> None:
        """Do something that nobody waits for; a daemon, so that it never holds up the end of the process."""
        threading.Thread(target=work, name="retrysafe-errand", daemon=True).start()


class Held:
    """A claim that holds and is renewed, while whoever has this runs the handler. To be concluded, or let go.

    Args:
        driver: that goes on afterwards.
        flow: of the request.
        effect: what to run.
        exchange: of the request.
    """

    def __init__(self, driver: Driver, flow: Flow[Answer], effect: Execute, exchange: Exchange) -> None:
        self.effect = effect
        self._driver = driver
        self._flow = flow
        self._exchange = exchange

    def conclude(self, outcome: Outcome) -> Answer:
        """Drive the request to its end; the caller sends the answer."""
        try:
            answer = self._concluded(outcome)
        except Exception:  # noqa: BLE001 - whatever it is, the record is not to look alive
            _log.exception("record %s: its handler had run, and then this failed", name_of(self.effect.claim.record_id))
            answer = self._give_up(outcome)
        finally:
            self.let_go()
        self._driver.observer.notice(Handled(answer.ending, self._exchange.route))
        return answer

    def _concluded(self, outcome: Outcome) -> Answer:
        flow, exchange = self._flow, self._exchange
        step = sent(flow, outcome)
        while isinstance(step, Effect):
            is_asked = isinstance(step, effects.Authorize)
            step = sent(flow, _authorized(exchange)) if is_asked else self._driver.advance(flow, step, exchange)
        return step

    def _give_up(self, outcome: Outcome) -> Answer:
        """A defect of ours: the record must not look alive, and run again, nor a whole answer be lost."""
        policy = self.effect.policy
        giving_up = transitions.MarkUnknownIfHeld(self.effect.claim, policy.unknown_retention_ms)
        self._driver.settle(giving_up, policy.lease_ms)
        return Deliver(Ending.UNRECORDED, recorded=False) if isinstance(outcome, effects.Answered) else BreakOff()

    def let_go(self) -> None:
        """Renew the claim no further, and have those look again who wait for its record."""
        self._driver.renewals.stop(self.effect)
        self._driver.waiting.wake(self.effect.claim.record_id)


def _authorized(exchange: Exchange) -> bool:
    """Whether the caller may see the answer of another attempt. Where that fails, nobody may, and it is told of."""
    try:
        return exchange.authorize()
    except Exception:  # noqa: BLE001 - a hook of the user's; the record stands, and its answer must not leak
        _log.exception("authorize= failed on %s; the answer of another attempt was not shown", exchange.route)
        return False


def settle_until(store: Store, observer: Observer, transition: Transition[bool], deadline_s: float) -> Settled:
    """Try until the store answers, or until the monotonic time is `deadline_s`."""
    delay_s = RETRY_FIRST_S
    while True:
        try:
            return Settled.DONE if store.perform(transition) else Settled.REFUSED
        except StoreError as error:
            observer.notice(StoreFailed(type(transition).__name__, str(error)))
            if time.monotonic() + delay_s > deadline_s:
                return Settled.OPEN
        time.sleep(delay_s)
        delay_s = min(2 * delay_s, RETRY_MOST_S)


IDLE_S = 5.0

_ALL: weakref.WeakSet[Renewals] = weakref.WeakSet()


def _after_fork() -> None:
    for renewals in list(_ALL):
        renewals.forget()


os.register_at_fork(after_in_child=_after_fork)


class Renewals:
    """One thread that renews the claims of all running handlers.

    It starts with the first handler, ends when there was none for a while, and starts anew in a child of a
    fork, where threads do not follow.
    """

    def __init__(self, store: Store, observer: Observer) -> None:
        self._store = store
        self._observer = observer
        self.forget()
        _ALL.add(self)

    def forget(self) -> None:
        """Begin anew, without the thread, the handlers, and a lock that one of them may have held in a fork."""
        self._running: dict[bytes, _Running] = {}
        self._change = threading.Condition()
        self._works = False

    def start(self, effect: Execute) -> None:
        """Renew this claim from now on."""
        with self._change:
            if not self._works:
                threading.Thread(target=self._work, name="retrysafe renewals", daemon=True).start()
                self._works = True  # it waits for this change; one that could not be started is tried again
            self._running[effect.claim.token] = _Running(effect)
            self._change.notify()

    def stop(self, effect: Execute) -> None:
        """Renew it no further; on any thread, and safe to repeat."""
        with self._change:
            self._running.pop(effect.claim.token, None)

    def _work(self) -> None:
        while True:
            with self._change:
                due = [running for running in self._running.values() if running.next_s <= time.monotonic()]
                if not due:
                    if not self._wait() and not self._running:
                        self._works = False
                        return
                    continue
            for running in due:
                if not self._goes_on(running):
                    with self._change:
                        self._running.pop(running.renewal.claim.token, None)

    def _goes_on(self, running: _Running) -> bool:
        """Renew one claim; whether to go on with it. What one raises is not to cost the others their claims."""
        try:
            return self._renew(running)
        except Exception:  # noqa: BLE001 - whatever it is, the others are to keep theirs
            _log.exception("the claim of record %s was not renewed", name_of(running.renewal.claim.record_id))
            return True

    def _wait(self) -> bool:
        """Wait until a claim is due, or there is a change; false when there was nothing to do for a while."""
        next_s = min((running.next_s for running in self._running.values()), default=None)
        return self._change.wait(IDLE_S if next_s is None else max(0.0, next_s - time.monotonic()))

    def _renew(self, running: _Running) -> bool:
        """Renew one claim; whether to go on with it."""
        running.next_s = time.monotonic() + running.every_s
        if time.monotonic() >= running.end_s:
            self._observer.notice(Overdue(name_of(running.renewal.claim.record_id)))
            return False
        try:
            if self._store.perform(running.renewal):
                return True
        except StoreError as error:
            self._observer.notice(StoreFailed("RenewIfHeld", str(error)))
            return True
        with self._change:
            ended = running.renewal.claim.token not in self._running  # its own settlement is no loss
        if not ended:
            self._observer.notice(ClaimLost(name_of(running.renewal.claim.record_id)))
        return False


class _Running:
    """A handler that is running: when its claim is due for renewal, and until when it may be renewed."""

    __slots__ = ("end_s", "every_s", "next_s", "renewal")

    def __init__(self, effect: Execute) -> None:
        policy = effect.policy
        self.renewal = transitions.RenewIfHeld(effect.claim, policy.lease_ms, policy.unknown_retention_ms)
        self.every_s = policy.lease_ms / 1_000 / RENEWALS_PER_LEASE
        self.next_s = time.monotonic() + self.every_s
        self.end_s = time.monotonic() + policy.execution_max_ms / 1_000
