"""Transactions and steps that are wrong."""

from __future__ import annotations

import asyncio

from retrysafe.lab.simulate.handlers import Stepping, Transacting
from retrysafe.lab.simulate.network import Transaction
from retrysafe.lab.simulate.worker import HandlerError
from retrysafe.operation.notebook import Notebook
from retrysafe.operation.step import Step, StepCall
from retrysafe.protocol import effects
from retrysafe.protocol.effects import Ended, Execute, Fate, Outcome
from retrysafe.protocol.journal import Entry
from retrysafe.protocol.transitions import Details

# --- transactions ---------------------------------------------------------------------------------


class CommitsWithoutTheClaim(Transacting):
    """That the completion changed nothing is not looked at: the rest of the transaction is committed."""

    async def complete(self, transaction: Transaction) -> None:
        if not await self.worker.connection.complete(transaction):
            self.recorded = None
            self.worker.world.server.insert(*transaction.place, transaction.attempt)
            raise HandlerError


class RecordsAfterwards(Transacting):
    """The row is committed by itself, and the record completed when the handler is over."""

    async def complete(self, transaction: Transaction) -> None:
        self.recorded = None
        scope, key = transaction.place
        self.worker.world.server.insert(scope, key, transaction.attempt)
        transaction.is_open = False
        raise _DoneApart

    async def handle(self, effect: Execute) -> None:
        try:
            await super().handle(effect)
        except _DoneApart:
            await self.respond(self.answer_of(effect, 201))


class _DoneApart(Exception):
    """The row is there."""


class BelievesTheHandler(Transacting):
    """What the handler answered is recorded, whatever became of its transaction."""

    def outcome_of(self, ended: Ended) -> Outcome:
        return ended

    async def complete(self, transaction: Transaction) -> None:
        """Only the row is in the transaction; and nobody asks whether it was committed."""
        await super().complete(transaction)
        self.worker.connection.roll_back(transaction)
        transaction.is_open = False

    async def handle(self, effect: Execute) -> None:
        try:
            await super().handle(effect)
        except Exception:  # noqa: BLE001 - it is what this one does
            await self.respond(self.answer_of(effect, 201))


class DiscardsWhatItCannotTell(Transacting):
    """A commit whose reply was lost counts as a failure that changed nothing."""

    def outcome_of(self, ended: Ended) -> Outcome:
        return effects.Raised(Fate.NOT_RUN) if isinstance(ended, effects.Raised) else super().outcome_of(ended)


# --- steps ----------------------------------------------------------------------------------------


class _Numbered(Notebook):
    def call(self, step: Step, entry: Entry) -> StepCall:
        made = super().call(step, entry)
        return StepCall(f"{made.key}-{self._claim.attempt}", made.input, made.attempt)


class _Shared(Notebook):
    def call(self, step: Step, entry: Entry) -> StepCall:
        made = super().call(step, entry)
        return StepCall("key of " + self._claim.record_id.hex(), made.input, made.attempt)


class _Forgetful(Notebook):
    def _read(self, details: Details) -> None:
        super()._read(details)
        self._entries = {}


class _Timeless(Notebook):
    """A call may be sent again for ever."""

    def find(self, step: Step) -> Entry | None:
        entry = super().find(step)
        if entry is None or entry.result:
            return entry
        now_ms = 1 << 60
        return Entry(entry.name, entry.target, now_ms, entry.sends, entry.input)


class _WithBook(Stepping):
    book_of: type[Notebook] = Notebook

    def notebook(self, effect: Execute) -> Notebook:
        made = super().notebook(effect)
        return self.book_of(made._store, made._observer, made._claim, made._terms)


class KeysByAttempt(_WithBook):
    """The key of a step has the number of the attempt in it."""

    book_of = _Numbered


class OneKeyForAll(_WithBook):
    """All steps of an operation have one key."""

    book_of = _Shared


class ForgetsResults(_WithBook):
    """A later attempt begins from the beginning."""

    book_of = _Forgetful


class SendsAgainForEver(_WithBook):
    """The window of the other side is not looked at."""

    book_of = _Timeless


class ChangesItsInput(Stepping):
    """What is sent along is made anew in each attempt, and the step is not told of it."""

    async def call(self, effect: Execute, name: str, call: StepCall) -> int:
        stamped = StepCall(call.key, b"at %d" % self.worker.world.number(), call.attempt)
        return await super().call(effect, name, stamped)


class SkipsTheJournal(Stepping):
    """Calls are made with keys that nobody wrote down."""

    async def step(self, effect: Execute, name: str) -> int:
        await asyncio.sleep(0)
        return await self.call(effect, name, StepCall(f"random {self.worker.world.number()}", None, 1))
