"""The handle that a handler has on its own operation: `operation()`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar, Unpack, overload

from retrysafe.errors import CallerError, NoOperation, StepMisused
from retrysafe.model import Claim, Response
from retrysafe.operation.step import StepCall, StepOptions, Steps, make_step
from retrysafe.protocol import key
from retrysafe.protocol.effects import CompletedWithin, Ended, Execute, Fate, Outcome
from retrysafe.protocol.flow import Terms

R = TypeVar("R")
T = TypeVar("T")

MakeSteps = Callable[[Claim, Terms], Steps]


class Keeper(Protocol):
    """Completes the records of a door's operations: `retrysafe.operation.transaction.StoreKeeper`.

    Only its promise is here, so that a handler's imports bring in no store.
    """

    def complete(  # noqa: PLR0913, PLR0917 - an operation's own attributes, and what its handler gives
        self, operation: Operation, execute: Execute, secret: bytes, connection: Any, response: R, status: int
    ) -> Awaitable[R]:
        """Complete the record of an operation; see `Operation.complete_within`."""


class Operation:
    """The operation that the running handler carries out.

    Attributes:
        key: the idempotency key as the client means it, without quotes. Treat it like personal data.
        scope: the account that the key belongs to.
        attempt: 1 for the first execution; higher after a release or a takeover.
        recorded: the answer that `complete_within` recorded, and the same sealed; None if it was not called.
    """

    __slots__ = (
        "_execute", "_fate", "_keeper", "_make_steps", "_steps", "_terms", "attempt", "key", "recorded",
        "scope",
    )  # fmt: skip

    def __init__(self, execute: Execute, terms: Terms, make_steps: MakeSteps, keeper: Keeper | None = None) -> None:
        self.key = execute.key.text
        self.scope = execute.scope
        self.attempt = execute.claim.attempt
        self.recorded: tuple[Response, bytes] | None = None
        self._execute = execute
        self._keeper = keeper
        self._terms = terms
        self._make_steps = make_steps
        self._steps: Steps | None = None
        self._fate = Fate.RAN if execute.policy.effects == "assumed" else Fate.NOT_BEGUN

    def child_key(self, name: str, target: str = "") -> str:
        """An idempotency key for a call that this operation makes (contract R101).

        It is the same in every attempt, on every worker and after a restart, and different for each
        name, target and operation, so that the other side can tell a repeated call from a new one.

        Args:
            name: of the step, "charge-card", say; keep it when the code changes.
            target: whom the call goes to, if one step calls several.

        Returns:
            36 characters in the form of a UUID.
        """
        return key.child_key(self._terms.secret, self._execute.claim.record_id, name, target)

    @overload
    def step(
        self, name: str, call: Callable[[StepCall], Awaitable[T]], **options: Unpack[StepOptions]
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def step(self, name: str, call: Callable[[StepCall], T], **options: Unpack[StepOptions]) -> T: ...

    def step(self, name: str, call: Callable[[StepCall], Any], **options: Unpack[StepOptions]) -> Any:
        """Make one call to the outside, and keep what it came to: a later attempt has the result and calls nothing.

        That the call is about to be made is durable before it is made, and its result afterwards (contract R102).
        If this attempt has lost its claim, nothing is called. On an event loop the step is a coroutine, and `call`
        a coroutine function; on a thread without one it is done when this returns.

        Args:
            name: of the step, "charge-card", say: once in an attempt, and the same in the next release.
            call: makes the call, given its `StepCall`; returns bytes or JSON data, small: 256 KiB for all steps.
            options:
                target: whom the call goes to, where steps of one name go to several.
                input: bytes or JSON data that the call is made with; kept, so that a later attempt sends the
                    same bytes, and compared: other input under the same name is refused.
                if_interrupted: what a later attempt does about a call whose result nobody recorded.
                    `"unknown"`: nothing; the outcome of the operation is unknown. `"resend"`: makes the call
                    again, with the same key and input, within `downstream_window`.
                downstream_window: how long the other side remembers a key, as a duration. It is counted from the
                    claim of the attempt that made the call first, by the store's clock.
                verify: asked instead, with the `StepCall`: returns the result, or `NOT_DONE`, and then the call
                    is made, or `UNKNOWN`.
                not_done: exceptions by which the call says that the other side did nothing.

        Returns:
            What the call returned, in this attempt or an earlier one.

        Raises:
            ClaimLost: another attempt has the operation.
            StepUnknown: nobody can tell what became of the call in an earlier attempt.
            StepChanged: an earlier attempt began the step with another input.
            StepMisused: the name was used before in this attempt; something is no data, or too large; or it comes
                after `complete_within`.
            StoreError: the store is away; nothing was called.
        """
        if self.recorded is not None:
            raise StepMisused(
                f'the step "{name}" comes after complete_within, and would wait for the record that the transaction '
                "has locked: take steps before the transaction, and complete_within at its end"
            )
        step = make_step(name, call, options)
        self.begin_effects()
        if self._steps is None:
            self._steps = self._make_steps(self._execute.claim, self._terms)
        return self._steps.take(step)

    def begin_effects(self) -> None:
        """State that from here on this attempt may take effect; for routes whose `effects` are `declared`.

        Until then a failure, that is an exception, an answer of 5xx or the end of the process's patience, leaves
        nothing behind: the record is released, and the next attempt runs. It costs nothing and writes nothing; a
        crash before it is an unknown outcome all the same.
        """
        if self._fate in (Fate.NOT_BEGUN, Fate.NOT_REACHED):
            self._fate = Fate.RAN

    def complete_within(self, connection: Any, response: R, *, status: int = 200) -> Awaitable[R]:
        """Record the answer on this connection, in its open transaction: one commit for the effect and its record.

        Commit afterwards. If the transaction is rolled back instead, nothing is recorded, and a retry runs again.
        From here on the claim is not renewed: commit within what is left of the lease. Once it is committed, the client
        gets what was recorded, whatever the handler goes on to answer (contract R42).

        It may be called again in a new transaction if the one before was rolled back, and only then.

        Args:
            connection: with an open transaction, to the database in which the records are: of psycopg, asyncpg,
                sqlite3, aiosqlite, PyMySQL or asyncmy, a connection or session of SQLAlchemy, or a connection of
                Django.
            response: what the client is to get: a response of Starlette, FastAPI, Django, Flask or werkzeug, a
                `retrysafe.Response`, or what can be written as JSON.
            status: of an answer that is given as JSON.

        Returns:
            The response. With a connection for asyncio it is done when it is awaited; with a blocking one it is done at
            once, and need not be awaited.

        Raises:
            ClaimLost: the claim does not hold any more. Let it raise, so that the transaction is rolled back.
            CallerError: the connection, its transaction, the store or the response cannot be used for this.
        """
        if self._keeper is None:
            raise CallerError("complete_within works behind a door of the application; what runs this handler has none")
        return self._keeper.complete(self, self._execute, self._terms.secret, connection, response, status)

    def no_effect(self) -> None:
        """State that this attempt changed nothing: its answer is not recorded, and a retry runs again.

        Say it only of what was rolled back or never begun; a handler that raises afterwards is believed.
        """
        self._fate = Fate.NO_EFFECT

    def not_run(self) -> None:
        """State that the request was refused before any handling: the key is as if it had never been sent.

        Where an earlier attempt ran, or this one has taken steps, it is released instead: that is not forgotten.
        """
        self._fate = Fate.NOT_RUN

    def await_entry(self) -> None:
        """For doors whose handler says when it is entered: what refuses until then has run nothing."""
        self._fate = Fate.NOT_REACHED

    def enter(self) -> None:
        """For glue: from here on it is the handler that runs."""
        if self._fate is Fate.NOT_REACHED:
            self._fate = Fate.RAN if self._execute.policy.effects == "assumed" else Fate.NOT_BEGUN

    def outcome_unknown(self) -> None:
        """State that nobody can tell whether this attempt took effect: it is not run again until that is settled."""
        self._fate = Fate.UNKNOWN

    def outcome(self, ended: Ended) -> Outcome:
        """For doors: what an end of the handler means, by what was recorded before."""
        return ended if self.recorded is None else CompletedWithin(*self.recorded, ended)

    @property
    def fate(self) -> Fate:
        """What was stated; else what its steps came to; RAN if there is nothing to be said."""
        if self._steps is not None and self._fate is Fate.NOT_RUN:
            return Fate.NO_EFFECT  # to forget the record would be to forget what its steps came to
        if self._steps is None or self._fate is not Fate.RAN:
            return self._fate
        return self._steps.fate()


Begin = Callable[[Execute, Terms], Operation]
"""`begin`, with what belongs to one door."""

_current: ContextVar[Operation | None] = ContextVar("retrysafe_operation", default=None)


def current_operation() -> Operation | None:
    """The operation of the running handler; None where no key governs the code."""
    return _current.get()


def operation() -> Operation:
    """The operation of the running handler.

    Raises:
        NoOperation: no idempotency key governs the code that calls.
    """
    found = _current.get()
    if found is None:
        raise NoOperation
    return found


def begin_without() -> None:
    """For doors: no operation is current in this context.

    A server may start a request in the context of the one before it, on the same connection.
    """
    if _current.get() is not None:
        _current.set(None)


def begin(execute: Execute, terms: Terms, make_steps: MakeSteps, keeper: Keeper | None = None) -> Operation:
    """For doors: make the operation of a handler that is about to run, current in this context.

    Args:
        execute: what runs.
        terms: of its request.
        make_steps: makes what takes its steps, if it has any.
        keeper: for operations that complete their own record; None refuses that.
    """
    begun = Operation(execute, terms, make_steps, keeper)
    _current.set(begun)
    return begun
