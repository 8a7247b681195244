"""Runs a flow on asyncio. The only place that shields.

Up to `Execute` a flow runs in the request's own task, where a leaving client may cancel it. From
`Execute` on it runs in an owner task, which no client and no outer middleware can cancel (contract R53):
there the handler runs, and where it sends the message that completes its response, the flow goes on to
its end while the handler waits.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from retrysafe.drive import RETRY_FIRST_S, RETRY_MOST_S, SETTLE_S
from retrysafe.drive.renewal import Renewals
from retrysafe.drive.step import first, sent, thrown
from retrysafe.drive.waiting import Waiting
from retrysafe.errors import StoreError
from retrysafe.model import Request
from retrysafe.observe import CutOff, Handled, Observer, StoreFailed, Unrecorded, name_of
from retrysafe.protocol import effects, transitions
from retrysafe.protocol.answers import Answer, BreakOff, Deliver, Ending
from retrysafe.protocol.effects import Effect, Execute, Flow, Outcome, Settled, Transition, Unread
from retrysafe.protocol.fingerprint import fingerprint_of
from retrysafe.stores.contract import Store

T = TypeVar("T")

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

    async def departure(self) -> None:
        """Return when the client has gone. Asked, and cancelled, only before `execute`."""

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
        self.store = store
        self.observer = observer
        self.renewals = Renewals(store, observer)
        self.waiting = Waiting(store, observer)
        self._owners: dict[_Owner, None] = {}  # in the order in which they began
        self._errands: set[asyncio.Task[Any]] = set()

    async def run(self, flow: Flow[Answer], exchange: Exchange) -> None:
        """Drive one request to its end, and answer it.

        Raises:
            Exception: what the handler raised, after its outcome was recorded and answered.
        """
        step = first(flow)
        while isinstance(step, Effect):
            answer: Any
            try:
                match step:
                    case effects.Admit():
                        scope = await exchange.scope()
                        request = Unread.NO_ACCOUNT if scope is None else await exchange.request(step.body_bytes_max)
                        answer = request if isinstance(request, Unread) else (scope, request)
                    case effects.Claiming():
                        answer = await self._claim(step)
                    case Execute():
                        break
                    case _:
                        answer = await self._perform(step, exchange)
            except StoreError as error:
                self.observer.notice(StoreFailed(type(step).__name__, str(error)))
                step = thrown(flow, error)
            else:
                step = sent(flow, answer)
        if isinstance(step, Execute):
            owner = _Owner(self, self._owners, flow, step, exchange)
            try:  # for its end, and not for its task, because a cancelled waiter takes a task along
                await owner.ended
            except asyncio.CancelledError:
                exchange.leave()
                raise
            return
        self.observer.notice(Handled(step.ending, exchange.route))
        await exchange.answer(step)

    async def _perform(self, effect: Effect[Any], exchange: Exchange) -> Any:
        """The effects that few requests ask for."""
        match effect:
            case effects.Authorize():
                return await exchange.authorize()
            case effects.ResolveScope():
                return await exchange.scope()
            case effects.TakeFingerprint(request, policy, secret):
                return await asyncio.to_thread(fingerprint_of, request, policy, secret)
            case Transition():
                return await self.store.submit(effect)
            case effects.Wait():
                return await self.waiting.wait(effect, exchange.departure)
            case _:
                raise AssertionError(f"an effect out of place: {type(effect).__name__}")

    async def drain(self, patience_s: float) -> None:
        """Wait for the owners on this loop; after `patience_s` cancel their handlers, whose records become unknown.

        Who waits for another request is no owner, and is sent away at once. An owner on another loop that runs is told
        to end then, and not waited for; one whose loop has ended is as dead as in a process that was killed.
        """
        self.waiting.end()
        loop = asyncio.get_running_loop()
        end_s = loop.time() + patience_s
        # a request that was about to claim may have become one meanwhile
        while (here := self._owners_on(loop)) and loop.time() < end_s:
            await asyncio.wait([owner.task for owner in here], timeout=end_s - loop.time())
        for owner in [owner for owner in list(self._owners) if owner.loop is not loop]:
            with suppress(RuntimeError):  # that loop is closed
                owner.loop.call_soon_threadsafe(owner.cut_off)
        late = self._owners_on(loop)
        if late:
            self.observer.notice(CutOff(sum(not owner.concluded for owner in late)))
            await asyncio.sleep(0)  # a task that is cancelled before its first step would never tell who waits for it
            for owner in late:
                owner.cut_off()
            await asyncio.wait([owner.task for owner in late], timeout=SETTLE_S + RETRY_MOST_S)
        if errands := [errand for errand in self._errands if errand.get_loop() is loop]:
            await asyncio.wait(errands, timeout=RETRY_MOST_S)

    def _owners_on(self, loop: asyncio.AbstractEventLoop) -> list[_Owner]:
        return [owner for owner in list(self._owners) if owner.loop is loop]

    async def _claim(self, claiming: effects.Claiming[Any]) -> Any:
        """Claim; when the answer reaches nobody, take the claim back."""
        try:
            return await self.store.submit(claiming)
        except (asyncio.CancelledError, Exception):
            lease_end_s = asyncio.get_running_loop().time() + claiming.lease_ms / 1_000
            self.errand(self.settle_until(claiming.undo(), lease_end_s))
            raise

    # --- settling while the store is away ---------------------------------------------------------

    async def settle_again(self, settle: effects.Settle) -> Settled:
        """Settle while the client waits; when the store stays away, go on without the client."""
        now_s = asyncio.get_running_loop().time()
        settled = await self.settle_until(settle.transition, now_s + SETTLE_S)
        if settled is Settled.OPEN:
            self.errand(self._settle_late(settle.transition, now_s + settle.lease_ms / 1_000))
        return settled

    async def _settle_late(self, transition: Transition[bool], deadline_s: float) -> None:
        if await self.settle_until(transition, deadline_s) is Settled.OPEN:
            self.observer.notice(Unrecorded(_record_name(transition)))

    async def settle_until(self, transition: Transition[bool], deadline_s: float) -> Settled:
        """Try until the store answers, or until the loop's time is `deadline_s`."""
        return await settle_until(self.store, transition, deadline_s)

    def errand(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Do something that no request's task may take down with it, and keep it alive until it is done."""
        errand = asyncio.get_running_loop().create_task(work)
        self._errands.add(errand)
        errand.add_done_callback(self._errands.discard)
        return errand


class _Owner:
    """Owns one execution: the handler, and what follows from its outcome.

    Args:
        driver: of the request.
        owners: where it stands while it is at work; the strong reference that keeps its task alive.
        flow: that has come to `effect`.
        effect: what to run.
        exchange: of the request.
    """

    __slots__ = (
        "_driver", "_effect", "_exchange", "_flow", "_interruption", "_owners", "concluded", "ended", "loop", "task",
    )  # fmt: skip

    def __init__(
        self, driver: Driver, owners: dict[_Owner, None], flow: Flow[Answer], effect: Execute, exchange: Exchange
    ) -> None:
        self.loop = loop = asyncio.get_running_loop()
        self._driver = driver
        self._owners = owners
        self._flow = flow
        self._effect = effect
        self._exchange = exchange
        self.ended: asyncio.Future[None] = loop.create_future()
        self._interruption: BaseException | None = None
        self.concluded = False
        owners[self] = None
        self.task = _started(loop, self._run())

    def cut_off(self) -> None:
        """Cancel the handler. To be called on its loop: on others it may be seen before it has a task."""
        self.task.cancel()

    async def _run(self) -> None:
        driver = self._driver
        try:  # around all of it: who waits for the end waits for ever if it does not come
            driver.renewals.start(self._effect, self._exchange)
            await self._exchange.execute(self._effect, self._conclude)
        except Exception as error:
            if self.ended.done():
                raise  # nobody waits any more: it is for the loop to tell
            self.ended.set_exception(error)
        finally:
            if not self.concluded:
                driver.renewals.stop(self._effect)
            del self._owners[self]
            if not self.ended.done():
                self.ended.set_result(None)

    async def _conclude(self, outcome: Outcome) -> None:
        """Record the outcome, whatever happens to the handler meanwhile, and answer.

        A handler may stand in a timeout or a cancel scope of its own; it is told of that afterwards.
        """
        driver, exchange = self._driver, self._exchange
        fault: BaseException | None = None
        try:
            step = sent(self._flow, outcome)
            while isinstance(step, Effect):
                if not isinstance(step, effects.Settle):
                    step = await self._advance(step)
                    continue
                pending = driver.store.submit(step.transition)
                if not pending.done():
                    await self._outlast(pending)
                if isinstance(error := pending.exception(), StoreError):
                    step = sent(self._flow, await self._settle_again(step, error))
                else:
                    step = sent(self._flow, settled_as(pending.result()))
            answer = step
        except Exception as error:  # noqa: BLE001 - a defect of ours: the record must not look alive, nor the answer be lost
            fault, answer = error, await self._give_up(outcome)
        driver.renewals.stop(self._effect)
        driver.waiting.wake(self._effect.claim.record_id)
        self.concluded = True
        driver.observer.notice(Handled(answer.ending, exchange.route))
        await exchange.answer(answer)
        if fault := fault or self._interruption:
            raise fault

    async def _give_up(self, outcome: Outcome) -> Answer:
        """The flow itself failed: the record says that the outcome is unknown; a whole answer still goes out."""
        effect = self._effect
        giving_up = transitions.MarkUnknownIfHeld(effect.claim, effect.policy.unknown_retention_ms)
        pending = await self._outlast(self._driver.store.submit(giving_up))
        if isinstance(error := pending.exception(), StoreError):
            await self._settle_again(effects.Settle(giving_up, effect.policy.lease_ms), error)
        return Deliver(Ending.UNRECORDED, recorded=False) if isinstance(outcome, effects.Answered) else BreakOff()

    async def _advance(self, effect: Effect[Any]) -> Effect[Any] | Answer:
        match effect:
            case Transition():
                pending = await self._outlast(self._driver.store.submit(effect))
                if isinstance(error := pending.exception(), StoreError):
                    return thrown(self._flow, error)
                return sent(self._flow, pending.result())
            case effects.Authorize():
                return sent(self._flow, await self._authorized())
            case _:
                raise TypeError(f"an effect out of place: {type(effect).__name__}")

    async def _settle_again(self, settle: effects.Settle, error: StoreError) -> Settled:
        driver = self._driver
        driver.observer.notice(StoreFailed(type(settle.transition).__name__, str(error)))
        retrying = driver.errand(driver.settle_again(settle))
        while not retrying.done():
            await self._outlast(asyncio.shield(retrying))
        return retrying.result()

    async def _authorized(self) -> bool:
        """Whether the caller may see the answer of another attempt. Where that fails, nobody may, and it is told of."""
        asking = self._driver.errand(self._exchange.authorize())
        try:
            while not asking.done():
                await self._outlast(asyncio.shield(asking))
            return asking.result()
        except Exception as error:  # noqa: BLE001 - a hook of the user's; the record stands, and its answer must not leak
            self._interruption = error
            return False

    async def _outlast(self, pending: asyncio.Future[T]) -> asyncio.Future[T]:
        """Wait until it is done; keep the cancellation that came meanwhile for later."""
        try:
            if not pending.done():
                await pending
        except asyncio.CancelledError as interruption:
            self._interruption = interruption
        except StoreError:
            pass  # it is in the future, for whoever asks
        return pending


def _started(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task for this work, begun at once where Python can: what ends without waiting never goes round the loop."""
    if sys.version_info >= (3, 12) and loop.get_task_factory() is None:
        return asyncio.Task(work, loop=loop, eager_start=True)
    return loop.create_task(work)


async def settle_until(store: Store, transition: Transition[bool], deadline_s: float) -> Settled:
    """Try until the store answers, or until the loop's time is `deadline_s`."""
    loop = asyncio.get_running_loop()
    delay_s = RETRY_FIRST_S
    while True:
        try:
            return settled_as(await store.submit(transition))
        except StoreError:
            if loop.time() + delay_s > deadline_s:
                return Settled.OPEN
        await asyncio.sleep(delay_s)
        delay_s = min(2 * delay_s, RETRY_MOST_S)


def settled_as(took_effect: bool) -> Settled:
    """What the store's word means for a settlement."""
    return Settled.DONE if took_effect else Settled.REFUSED


def _record_name(transition: Transition[bool]) -> str:
    claim = getattr(transition, "claim", None)
    return name_of(claim.record_id) if claim is not None else "?"
