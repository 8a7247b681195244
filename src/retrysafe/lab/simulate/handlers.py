"""Handlers of the other modes: whose effect is in a transaction with its record, and whose effects are steps."""

from __future__ import annotations

import asyncio
from typing import Any

from retrysafe.errors import ClaimLost, StepUnknown, StoreError
from retrysafe.lab.evidence import Effect, Mode
from retrysafe.lab.simulate.network import Transaction
from retrysafe.lab.simulate.scenario import WINDOW_S, Ends
from retrysafe.lab.simulate.worker import Exchange, HandlerError, Sent, Silent, Worker
from retrysafe.model import Response
from retrysafe.operation.notebook import Notebook
from retrysafe.operation.step import StepCall, make_step
from retrysafe.protocol import effects, transitions
from retrysafe.protocol.effects import Ended, Execute, Outcome
from retrysafe.protocol.snapshot import seal, take_snapshot

_OUTRIGHT = (Ends.DECLINES, Ends.BUSY, Ends.RAISES_BEFORE)


class Transacting(Exchange):
    """Writes a row and completes its record in one transaction (`Operation.complete_within`).

    What stands on a database's connection is simulated: a statement that is conditional on the token and locks the
    record, and a commit whose reply may get lost. What the flow makes of it is the product's.
    """

    recorded: tuple[Response, bytes] | None = None

    async def handle(self, effect: Execute) -> None:
        """The handler."""
        behaviour, ends = self.plan.behaviour, self.plan.behaviour.ends
        if ends in _OUTRIGHT:
            await super().handle(effect)
            return
        await asyncio.sleep(behaviour.before_s)
        response = self.answer_of(effect, 201)
        connection = self.worker.connection
        transaction = self.begin(effect, response)
        try:
            self.worker.driver.renewals.stop(effect)
            self.recorded = (
                response,
                transaction.completing.response,
            )  # at once: who is stopped in the middle may have done it
            await self.complete(transaction)
            if ends is Ends.LATE:
                connection.commit_later(transaction, behaviour.after_s)
            else:
                await asyncio.sleep(behaviour.after_s)
                if ends is Ends.RAISES_AFTER:
                    raise HandlerError  # noqa: TRY301 - as a handler would
                await connection.commit(transaction)
        except StoreError:
            connection.roll_back(transaction)
            raise HandlerError from None
        except BaseException:
            connection.roll_back(transaction)
            raise
        if ends is Ends.BREAKS:
            self.pieces_sent = True
            raise HandlerError
        await self.respond(response)

    def begin(self, effect: Execute, response: Response) -> Transaction:
        """A transaction with a row in it, and what will complete the record."""
        policy, claim = effect.policy, effect.claim
        answered = effects.Answered(response, whole=True, size=len(response.body), digest=b"", fate=effects.Fate.RAN)
        stored = seal(take_snapshot(answered, effect.request.head, policy), claim.record_id, self.worker.world.secret)
        completing = transitions.CompleteIfHeld(claim, stored, policy.keep_ms, policy.tombstone_ms)
        return Transaction(completing, (self.plan.scope, self.plan.key), claim.attempt)

    async def complete(self, transaction: Transaction) -> None:
        """Complete the record in it; who lost its claim rolls back."""
        if not await self.worker.connection.complete(transaction):
            self.recorded = None
            raise HandlerError

    def outcome_of(self, ended: Ended) -> Outcome:
        """What an end means, by what was recorded before."""
        return ended if self.recorded is None else effects.CompletedWithin(*self.recorded, ended)


class Stepping(Exchange):
    """Takes two steps, each a call to another side that remembers keys for a while (`Operation.step`)."""

    def __init__(self, worker: Worker, sent: Sent) -> None:
        super().__init__(worker, sent)
        self.book: Notebook | None = None

    async def handle(self, effect: Execute) -> None:
        """The handler."""
        behaviour, ends = self.plan.behaviour, self.plan.behaviour.ends
        if ends in _OUTRIGHT:
            await super().handle(effect)
            return
        self.book = self.notebook(effect)
        await asyncio.sleep(behaviour.before_s)
        charged = await self.step(effect, "charge")
        await asyncio.sleep(behaviour.after_s)
        if ends is Ends.RAISES_AFTER:
            raise HandlerError
        mailed = await self.step(effect, "mail")
        if ends is Ends.BREAKS:
            self.pieces_sent = True
            raise HandlerError
        fields = ((b"content-type", b"text/plain"), (b"x-order", b"%d" % charged))
        await self.respond(Response(201, fields, f"{self.plan.scope}:{charged},{mailed}".encode()))

    def notebook(self, effect: Execute) -> Notebook:
        """The journal of this attempt."""
        return Notebook(self.worker.driver.store, Silent(), effect.claim, self.worker.world.terms())

    async def step(self, effect: Execute, name: str) -> int:
        """One step; what it raises ends the handler."""
        options: dict[str, Any] = {"if_interrupted": "resend", "downstream_window": f"{WINDOW_S:g}s"}
        step = make_step(name, lambda call: self.call(effect, name, call), {**options, "input": self.input_of(name)})  # type: ignore[typeddict-item] # as a handler gives them
        if self.book is None:
            raise AssertionError("a step before its journal")
        try:
            number: int = await self.book.take(step)
        except (ClaimLost, StepUnknown, StoreError):
            raise HandlerError from None
        book = self.book
        if book._kept == book._version and book._doubted is None:  # noqa: SLF001 - whether it is durable is its own affair
            self.worker.world.keeps(self.plan, name, effect.claim.attempt)
        return number

    def input_of(self, name: str) -> str:
        """What is sent along."""
        return f"{name} {self.plan.content}"

    async def call(self, effect: Execute, name: str, call: StepCall) -> int:
        """Ask the other side; its number for what it has done under this key."""
        world = self.worker.world
        answer: asyncio.Future[int] = world.loop.create_future()
        plan, said = self.plan, (call.input or b"").decode()
        line = Effect(
            0, plan.scope, plan.key, self.sent.number, self.worker.name, plan.content, effect.claim.attempt,
            step=name, child_key=call.key, input=said,
        )  # fmt: skip
        world.loop.post(world.loop.world, world.choices.latency_s(self.worker.actor), world.happen_once, line, answer)
        return await answer

    def outcome_of(self, ended: Ended) -> Outcome:
        """An attempt that fails leaves what its steps came to."""
        if self.book is not None and isinstance(ended, effects.Raised):
            return effects.Raised(self.book.fate())
        if self.book is not None and isinstance(ended, effects.Cancelled):
            return effects.Cancelled(self.book.fate())
        return ended


EXCHANGES: dict[Mode, type[Exchange]] = {
    Mode.MANUAL: Exchange,
    Mode.RERUN: Exchange,
    Mode.TRANSACTIONAL: Transacting,
    Mode.STEPS: Stepping,
}
