"""Flows and drivers that are wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from retrysafe.drive.aio import Driver
from retrysafe.drive.renewal import Renewals
from retrysafe.drive.step import first, sent, thrown
from retrysafe.errors import StoreError
from retrysafe.lab.simulate.network import START_MS
from retrysafe.model import Found, Head, Record, State
from retrysafe.protocol import effects, transitions
from retrysafe.protocol.answers import Answer
from retrysafe.protocol.effects import Effect, Execute, Flow, Settled, WaitEnd
from retrysafe.protocol.flow import Terms, protect
from retrysafe.protocol.policy import Policy


def answering(change: Callable[[Effect[Any], Any], Any]) -> Callable[[Head, Terms], Flow[Answer]]:
    """The flow, to which some answers are told otherwise."""

    def wrong(head: Head, terms: Terms) -> Flow[Answer]:
        inner = protect(head, terms)
        step: Any = first(inner)
        while isinstance(step, Effect):
            try:
                answer = yield step
            except StoreError as error:
                step = thrown(inner, error)
            else:
                step = sent(inner, change(step, answer))
        return step  # type: ignore[no-any-return] # what the flow returned

    return wrong


def keeps_its_answer(effect: Effect[Any], answer: Any) -> Any:
    """A settlement that is refused counts as done."""
    return Settled.DONE if isinstance(effect, effects.Settle) and answer is Settled.REFUSED else answer


def says_recorded(effect: Effect[Any], answer: Any) -> Any:
    """A settlement that is open counts as done."""
    return Settled.DONE if isinstance(effect, effects.Settle) and answer is Settled.OPEN else answer


def runs_after_waiting(head: Head, terms: Terms) -> Flow[Answer]:
    """Who has waited takes it that it is its turn."""
    inner = protect(head, terms)
    step: Any = first(inner)
    waited = False
    while isinstance(step, Effect):
        if waited and isinstance(step, transitions.ClaimIfAbsent):
            step = sent(inner, _granted(step))
            continue
        try:
            answer = yield step
        except StoreError as error:
            step = thrown(inner, error)
        else:
            waited = isinstance(step, effects.Wait) and answer.end is WaitEnd.CHANGED
            step = sent(inner, answer)
    return step  # type: ignore[no-any-return] # what the flow returned


def _granted(claim: transitions.ClaimIfAbsent) -> Found:
    """What the store would say if it had granted this."""
    until_ms = START_MS + claim.lease_ms
    record = Record(
        State.IN_PROGRESS, claim.token, 1, claim.fingerprint, START_MS, START_MS, until_ms, None, None, until_ms, None
    )
    return Found(record, START_MS)


def with_token(head: Head, terms: Terms) -> Flow[Answer]:
    """Every claim has the same token."""
    return protect(head, Terms(terms.policy, terms.namespace, terms.secret, b"the same token!!", route=terms.route))


_BLIND: dict[int, Policy] = {}


def without_fingerprint(head: Head, terms: Terms) -> Flow[Answer]:
    """Whatever comes under a key is the same request."""
    policy = _BLIND.get(terms.policy.lease_ms * 10 + (terms.policy.recovery == "rerun"))
    if policy is None:
        policy = Policy(lease=f"{terms.policy.lease_ms}ms", recovery=terms.policy.recovery, fingerprint="none")
        _BLIND[terms.policy.lease_ms * 10 + (terms.policy.recovery == "rerun")] = policy
    return protect(head, Terms(policy, terms.namespace, terms.secret, terms.token, route=terms.route))


class _NoRenewals(Renewals):
    def start(self, effect: Execute, exchange: Any) -> None:
        """Nothing is renewed."""


class NeverRenews(Driver):
    """The lease of a running handler runs out."""

    def __init__(self, store: Any, observer: Any) -> None:
        super().__init__(store, observer)
        self.renewals = _NoRenewals(store, observer)


class RunsWhenInDoubt(Driver):
    """A claim whose reply was lost counts as granted."""

    async def _claim(self, claiming: effects.Claiming[Any]) -> Any:
        try:
            return await self.store.submit(claiming)
        except StoreError:
            return _granted(claiming) if isinstance(claiming, transitions.ClaimIfAbsent) else True


class FailsOpen(Driver):
    """Without the store, requests run unprotected."""

    async def run(self, flow_: Flow[Answer], exchange: Any) -> None:
        try:
            await self.store.submit(transitions.Read(b"?"))
        except StoreError:
            await exchange.unprotected()
        else:
            await super().run(flow_, exchange)


class TakesBackWhatRuns(Driver):
    """When the client leaves, its claim is taken back, while the handler runs on."""

    async def run(self, flow_: Flow[Answer], exchange: Any) -> None:
        try:
            await super().run(flow_, exchange)
        except asyncio.CancelledError:
            if exchange.effect is not None:
                self.errand(self.settle_until(transitions.DiscardIfHeld(exchange.effect.claim), 1e9))
            raise
