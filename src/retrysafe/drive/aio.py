"""Runs a flow on asyncio. The only place that shields.

Up to `Execute` a flow runs in the request's own task, where a leaving client may cancel it. From
`Execute` on it runs in an owner task, which no client and no outer middleware can cancel (contract R53).
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, TypeVar

from retrysafe.drive import RENEWALS_PER_LEASE, RETRY_FIRST_S, RETRY_MOST_S, SETTLE_S
from retrysafe.drive.step import first, sent, thrown
from retrysafe.errors import StoreError
from retrysafe.model import Request
from retrysafe.observe import ClaimLost, CutOff, Handled, Observer, Overdue, StoreFailed, Unrecorded, name_of
from retrysafe.protocol import effects
from retrysafe.protocol.effects import Effect, Execute, Flow, Outcome, Settled, Transition, Unread
from retrysafe.protocol.fingerprint import fingerprint_of
from retrysafe.protocol.flow import Answer
from retrysafe.stores.contract import Store

T = TypeVar("T")

# Hashing 256 KiB takes about 0.15 ms; more than that would hold up the loop for other requests.
INLINE_BYTES_MAX = 256 << 10


class Exchange(Protocol):
    """One request at a door, as the driver needs it. A door makes a new one for each request."""

    route: str

    async def scope(self) -> str | None:
        """The account that the request belongs to."""

    async def request(self, body_bytes_max: int) -> Request | Unread:
        """The request with its whole content."""

    async def authorize(self) -> bool:
        """May the caller see the stored answer now?"""

    async def execute(self, effect: Execute) -> Outcome:
        """Run the handler up to its last response message, which waits for `answer`. Never raises."""

    async def answer(self, answer: Answer) -> None:
        """Send what the flow decided."""

    async def finish(self) -> None:
        """Wait for what the handler does after its answer; raise what it raised."""

    def overdue(self) -> None:
        """The handler had all the time it may have: let it know."""

    def cancel(self) -> None:
        """Stop the handler."""


class Driver:
    """Drives flows with one store.

    Args:
        store: opened.
        observer: told of what happens.
    """

    def __init__(self, store: Store, observer: Observer) -> None:
        self._store = store
        self._observer = observer
        self._owners: dict[asyncio.Task[None], Exchange] = {}
        self._errands: set[asyncio.Task[None]] = set()

    async def run(self, flow: Flow[Answer], exchange: Exchange) -> Answer | None:
        """Drive one request to its end.

        Returns:
            The answer to give, if nothing was executed. None: the handler ran, and its owner has
            given the answer.

        Raises:
            Exception: what the handler raised, after its outcome was recorded and answered.
        """
        step = first(flow)
        while isinstance(step, Effect):
            if isinstance(step, Execute):
                await self._hand_over(flow, step, exchange)
                return None
            step = await self._advance(flow, step, exchange)
        self._observer.notice(Handled(step.ending, exchange.route))
        return step

    async def drain(self, patience_s: float) -> None:
        """Wait for the owners; after `patience_s` cancel their handlers, whose records become unknown."""
        owners = dict(self._owners)
        if owners:
            _, late = await asyncio.wait(owners, timeout=patience_s)
            if late:
                self._observer.notice(CutOff(len(late)))
                for owner in late:
                    owners[owner].cancel()
                await asyncio.wait(late, timeout=SETTLE_S + RETRY_MOST_S)
        if self._errands:
            await asyncio.wait(set(self._errands), timeout=RETRY_MOST_S)

    # --- stepping ---------------------------------------------------------------------------------

    async def _advance(self, flow: Flow[Answer], effect: Effect[Any], exchange: Exchange) -> Effect[Any] | Answer:
        """Perform one effect and give the flow its answer."""
        try:
            answer = await self._perform(effect, exchange)
        except StoreError as error:
            self._observer.notice(StoreFailed(type(effect).__name__, str(error)))
            return thrown(flow, error)
        return sent(flow, answer)

    async def _perform(self, effect: Effect[Any], exchange: Exchange) -> Any:  # noqa: PLR0911 - one return an effect
        match effect:
            case effects.Claiming():
                return await self._claim(effect)
            case Transition():
                return await self._store.submit(effect)
            case effects.TakeFingerprint(request, policy, secret):
                if request.body.size > INLINE_BYTES_MAX:
                    return await asyncio.to_thread(fingerprint_of, request, policy, secret)
                return fingerprint_of(request, policy, secret)
            case effects.Settle(transition, lease_ms):
                return await self._settle(transition, lease_ms)
            case effects.ResolveScope():
                return await exchange.scope()
            case effects.ReadRequest(body_bytes_max):
                return await exchange.request(body_bytes_max)
            case effects.Authorize():
                return await exchange.authorize()
            case _:
                raise AssertionError(f"an effect that this driver does not know: {type(effect).__name__}")

    # --- the owner --------------------------------------------------------------------------------

    async def _hand_over(self, flow: Flow[Answer], effect: Execute, exchange: Exchange) -> None:
        """Start the owner and wait for it; whoever waits may leave, the owner stays."""
        owner = asyncio.get_running_loop().create_task(self._own(flow, effect, exchange))
        self._owners[owner] = exchange  # also the strong reference that keeps the task alive
        owner.add_done_callback(self._release_owner)
        await asyncio.shield(owner)

    def _release_owner(self, owner: asyncio.Task[None]) -> None:
        del self._owners[owner]

    async def _own(self, flow: Flow[Answer], effect: Execute, exchange: Exchange) -> None:
        renewal = _Renewal(self._store, self._observer, effect, exchange)
        try:
            step = sent(flow, await exchange.execute(effect))
            while isinstance(step, Effect):
                step = await self._advance(flow, step, exchange)
        except BaseException:
            exchange.cancel()  # a defect here must not leave a handler waiting for ever
            raise
        finally:
            renewal.stop()
        self._observer.notice(Handled(step.ending, exchange.route))
        await exchange.answer(step)
        await exchange.finish()

    # --- the store --------------------------------------------------------------------------------

    async def _claim(self, claiming: effects.Claiming[Any]) -> Any:
        """Claim; when the answer reaches nobody, take the claim back."""
        pending = self._store.submit(claiming)
        try:
            return pending.result() if pending.done() else await asyncio.shield(pending)
        except (asyncio.CancelledError, StoreError):
            self._errand(self._undo(pending, claiming.undo()))
            raise

    async def _undo(self, pending: asyncio.Future[Any], undo: Transition[bool]) -> None:
        await asyncio.wait([pending])
        await self._settle_until(undo, asyncio.get_running_loop().time() + SETTLE_S)

    async def _settle(self, transition: Transition[bool], lease_ms: int) -> Settled:
        """Settle while the client waits; when the store stays away, go on without the client."""
        try:
            return Settled.DONE if await self._store.submit(transition) else Settled.REFUSED
        except StoreError as error:
            self._observer.notice(StoreFailed(type(transition).__name__, str(error)))
        now_s = asyncio.get_running_loop().time()
        settled = await self._settle_until(transition, now_s + SETTLE_S)
        if settled is Settled.OPEN:
            self._errand(self._settle_late(transition, now_s + lease_ms / 1_000))
        return settled

    async def _settle_late(self, transition: Transition[bool], deadline_s: float) -> None:
        if await self._settle_until(transition, deadline_s) is Settled.OPEN:
            self._observer.notice(Unrecorded(_record_name(transition)))

    async def _settle_until(self, transition: Transition[bool], deadline_s: float) -> Settled:
        loop = asyncio.get_running_loop()
        delay_s = RETRY_FIRST_S
        while True:
            try:
                return Settled.DONE if await self._store.submit(transition) else Settled.REFUSED
            except StoreError:
                if loop.time() + delay_s > deadline_s:
                    return Settled.OPEN
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, RETRY_MOST_S)

    def _errand(self, work: Any) -> None:
        """Do something that nobody waits for, and keep it alive until it is done."""
        errand = asyncio.get_running_loop().create_task(work)
        self._errands.add(errand)
        errand.add_done_callback(self._errands.discard)


class _Renewal:
    """Renews one claim at a third of its lease, by timer: it costs next to nothing to a handler that is quick."""

    def __init__(self, store: Store, observer: Observer, effect: Execute, exchange: Exchange) -> None:
        policy = effect.policy
        self._store = store
        self._observer = observer
        self._exchange = exchange
        self._claim = effect.claim
        self._renewal = effects.RenewIfHeld(effect.claim, policy.lease_ms, policy.unknown_retention_ms)
        self._loop = asyncio.get_running_loop()
        self._every_s = policy.lease_ms / 1_000 / RENEWALS_PER_LEASE
        self._end_s = self._loop.time() + policy.execution_max_ms / 1_000
        self._timer = self._loop.call_later(self._every_s, self._renew)

    def stop(self) -> None:
        """The outcome is settled: no more leases."""
        self._timer.cancel()

    def _renew(self) -> None:
        if self._loop.time() >= self._end_s:
            self._observer.notice(Overdue(name_of(self._claim.record_id)))
            self._exchange.overdue()
            return
        self._timer = self._loop.call_later(self._every_s, self._renew)
        self._store.submit(self._renewal).add_done_callback(self._renewed)

    def _renewed(self, renewal: asyncio.Future[bool]) -> None:
        if renewal.cancelled():
            return
        if error := renewal.exception():
            self._observer.notice(StoreFailed("RenewIfHeld", str(error)))
        elif not renewal.result() and not self._timer.cancelled():
            self._timer.cancel()
            self._observer.notice(ClaimLost(name_of(self._claim.record_id)))


def _record_name(transition: Transition[bool]) -> str:
    claim = getattr(transition, "claim", None)
    return name_of(claim.record_id) if claim is not None else "?"
