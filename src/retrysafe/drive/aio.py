"""Runs a flow on asyncio. The only place that shields.

Up to `Execute` a flow runs in the request's own task, where a leaving client may cancel it. From
`Execute` on it runs in an owner task, which no client and no outer middleware can cancel (contract R53):
there the handler runs, and where it sends the message that completes its response, the flow goes on to
its end while the handler waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from retrysafe.drive import RETRY_FIRST_S, RETRY_MOST_S, SETTLE_S
from retrysafe.drive.renewal import Renewals
from retrysafe.drive.step import first, sent, thrown
from retrysafe.errors import StoreError
from retrysafe.model import Request
from retrysafe.observe import CutOff, Handled, Observer, StoreFailed, Unrecorded, name_of
from retrysafe.protocol import effects
from retrysafe.protocol.effects import Effect, Execute, Flow, Outcome, Settled, Transition, Unread
from retrysafe.protocol.fingerprint import fingerprint_of
from retrysafe.protocol.flow import Answer
from retrysafe.stores.contract import Store

T = TypeVar("T")

Interruptions = list[asyncio.CancelledError]
Conclude = Callable[[Outcome], Awaitable[None]]


class Exchange(Protocol):
    """One request at a door, as the driver needs it. A door makes a new one for each request."""

    route: str

    async def scope(self) -> str | None:
        """The account that the request belongs to."""

    async def request(self, body_bytes_max: int) -> Request | Unread:
        """The request with its whole content."""

    async def authorize(self) -> bool:
        """May the caller see the stored answer now?"""

    async def execute(self, effect: Execute, conclude: Conclude) -> None:
        """Run the handler to its end.

        Args:
            effect: what to run.
            conclude: to be called once, with the outcome, at the message that completes the response and
                before it is sent; calls `answer`. What the handler does afterwards is outside the record.

        Raises:
            Exception: what the handler raised, after it was concluded.
        """

    async def answer(self, answer: Answer) -> None:
        """Send what the flow decided."""

    def leave(self) -> None:
        """Whoever waited for the answer is gone: send nothing further."""

    def overdue(self) -> None:
        """The handler had all the time it may have: let it know."""


class Driver:
    """Drives flows with one store.

    Args:
        store: opened.
        observer: told of what happens.
    """

    def __init__(self, store: Store, observer: Observer) -> None:
        self._store = store
        self._observer = observer
        self._renewals = Renewals(store, observer)
        self._owners: set[asyncio.Task[None]] = set()
        self._errands: set[asyncio.Task[Any]] = set()

    async def run(self, flow: Flow[Answer], exchange: Exchange) -> None:
        """Drive one request to its end, and answer it.

        Raises:
            Exception: what the handler raised, after its outcome was recorded and answered.
        """
        step = first(flow)
        while isinstance(step, Effect):
            if isinstance(step, Execute):
                await self._hand_over(flow, step, exchange)
                return
            step = await self._advance(flow, step, exchange)
        self._observer.notice(Handled(step.ending, exchange.route))
        await exchange.answer(step)

    async def drain(self, patience_s: float) -> None:
        """Wait for the owners; after `patience_s` cancel their handlers, whose records become unknown."""
        if self._owners:
            _, late = await asyncio.wait(self._owners, timeout=patience_s)
            if late:
                self._observer.notice(CutOff(len(late)))
                for owner in late:
                    owner.cancel()
                await asyncio.wait(late, timeout=SETTLE_S + RETRY_MOST_S)
        if self._errands:
            await asyncio.wait(self._errands, timeout=RETRY_MOST_S)

    # --- stepping ---------------------------------------------------------------------------------

    async def _advance(self, flow: Flow[Answer], effect: Effect[Any], exchange: Exchange) -> Effect[Any] | Answer:
        """Perform one effect before the handler runs, and give the flow its answer."""
        answer: Any
        try:
            match effect:
                case effects.ResolveScope():
                    answer = await exchange.scope()
                case effects.ReadRequest(body_bytes_max):
                    answer = await exchange.request(body_bytes_max)
                case effects.TakeFingerprint(request, policy, secret):
                    answer = await asyncio.to_thread(fingerprint_of, request, policy, secret)
                case effects.Claiming():
                    answer = await self._claim(effect)
                case Transition():
                    answer = await self._store.submit(effect)
                case effects.Authorize():
                    answer = await exchange.authorize()
                case _:
                    raise AssertionError(f"an effect out of place: {type(effect).__name__}")
        except StoreError as error:
            self._observer.notice(StoreFailed(type(effect).__name__, str(error)))
            return thrown(flow, error)
        return sent(flow, answer)

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

    # --- the owner --------------------------------------------------------------------------------

    async def _hand_over(self, flow: Flow[Answer], effect: Execute, exchange: Exchange) -> None:
        """Start the owner and wait for its end; whoever waits may leave, the owner stays."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        owner = loop.create_task(self._own(flow, effect, exchange, ended))
        self._owners.add(owner)  # also the strong reference that keeps the task alive
        owner.add_done_callback(self._owners.discard)
        try:
            await ended  # and not for the owner itself: who waits for a task and is cancelled takes it along
        except asyncio.CancelledError:
            exchange.leave()
            raise

    async def _own(self, flow: Flow[Answer], effect: Execute, exchange: Exchange, ended: asyncio.Future[None]) -> None:
        async def conclude(outcome: Outcome) -> None:
            interruptions: Interruptions = []
            answer = await self._conclude(flow, outcome, interruptions)
            self._renewals.stop(effect)
            self._observer.notice(Handled(answer.ending, exchange.route))
            await exchange.answer(answer)
            for interruption in interruptions:
                raise interruption

        self._renewals.start(effect, exchange)
        try:
            await exchange.execute(effect, conclude)
        except Exception as error:
            if ended.done():
                raise  # nobody waits any more: it is for the loop to tell
            ended.set_exception(error)
        finally:
            self._renewals.stop(effect)
            if not ended.done():
                ended.set_result(None)

    async def _conclude(self, flow: Flow[Answer], outcome: Outcome, interruptions: Interruptions) -> Answer:
        """Record the outcome, whatever happens to the handler meanwhile."""
        step = sent(flow, outcome)
        while isinstance(step, Effect):
            match step:
                case effects.Settle():
                    step = sent(flow, await self._settle(step, interruptions))
                case Transition():
                    pending = self._store.submit(step)
                    if not pending.done():
                        await _outlast(pending, interruptions)
                    error = pending.exception()
                    step = thrown(flow, error) if isinstance(error, StoreError) else sent(flow, pending.result())
                case _:
                    raise AssertionError(f"an effect out of place: {type(step).__name__}")
        return step

    async def _settle(self, settle: effects.Settle, interruptions: Interruptions) -> Settled:
        """Settle while the client waits; when the store stays away, go on without the client."""
        pending = self._store.submit(settle.transition)
        if not pending.done():
            await _outlast(pending, interruptions)
        error = pending.exception()
        if not isinstance(error, StoreError):
            return _settled(pending.result())
        self._observer.notice(StoreFailed(type(settle.transition).__name__, str(error)))
        retrying = self._errand(self._settle_again(settle))
        await _outlast(retrying, interruptions)
        return retrying.result()

    async def _settle_again(self, settle: effects.Settle) -> Settled:
        now_s = asyncio.get_running_loop().time()
        settled = await self._settle_until(settle.transition, now_s + SETTLE_S)
        if settled is Settled.OPEN:
            self._errand(self._settle_late(settle.transition, now_s + settle.lease_ms / 1_000))
        return settled

    async def _settle_late(self, transition: Transition[bool], deadline_s: float) -> None:
        if await self._settle_until(transition, deadline_s) is Settled.OPEN:
            self._observer.notice(Unrecorded(_record_name(transition)))

    async def _settle_until(self, transition: Transition[bool], deadline_s: float) -> Settled:
        loop = asyncio.get_running_loop()
        delay_s = RETRY_FIRST_S
        while True:
            try:
                return _settled(await self._store.submit(transition))
            except StoreError:
                if loop.time() + delay_s > deadline_s:
                    return Settled.OPEN
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, RETRY_MOST_S)

    def _errand(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Do something that no request's task may take down with it, and keep it alive until it is done."""
        errand = asyncio.get_running_loop().create_task(work)
        self._errands.add(errand)
        errand.add_done_callback(self._errands.discard)
        return errand


async def _outlast(pending: asyncio.Future[Any], interruptions: Interruptions) -> None:
    """Wait until it is done, even if this task is cancelled meanwhile; the cancellations are kept for later.

    A handler may stand in a timeout or a cancel scope of its own while its answer is being recorded.
    """
    while not pending.done():
        try:
            await asyncio.shield(pending)
        except asyncio.CancelledError as interruption:
            interruptions.append(interruption)
        except StoreError:
            return


def _settled(took_effect: bool) -> Settled:
    return Settled.DONE if took_effect else Settled.REFUSED


def _record_name(transition: Transition[bool]) -> str:
    claim = getattr(transition, "claim", None)
    return name_of(claim.record_id) if claim is not None else "?"
