"""The handle that a handler has on its own operation: `operation()`."""

from __future__ import annotations

from collections.abc import Awaitable
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from retrysafe.errors import CallerError, NoOperation
from retrysafe.model import Response
from retrysafe.protocol import key
from retrysafe.protocol.effects import CompletedWithin, Ended, Execute, Fate, Outcome

R = TypeVar("R")


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
        recorded: the answer that `complete_within` recorded; None if it was not called.
    """

    __slots__ = ("_execute", "_fate", "_keeper", "_secret", "attempt", "key", "recorded", "scope")

    def __init__(self, execute: Execute, secret: bytes, keeper: Keeper | None = None) -> None:
        self.key = execute.key.text
        self.scope = execute.scope
        self.attempt = execute.claim.attempt
        self.recorded: Response | None = None
        self._execute = execute
        self._secret = secret
        self._keeper = keeper
        self._fate = Fate.RAN

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
        return key.child_key(self._secret, self._execute.claim.record_id, name, target)

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
        return self._keeper.complete(self, self._execute, self._secret, connection, response, status)

    def no_effect(self) -> None:
        """State that this attempt changed nothing: its answer is not recorded, and a retry runs again.

        Say it only of what was rolled back or never begun; a handler that raises afterwards is believed.
        """
        self._fate = Fate.NO_EFFECT

    def not_run(self) -> None:
        """State that the request was refused before any handling: the key is as if it had never been sent."""
        self._fate = Fate.NOT_RUN

    def outcome_unknown(self) -> None:
        """State that nobody can tell whether this attempt took effect: it is not run again until that is settled."""
        self._fate = Fate.UNKNOWN

    def outcome(self, ended: Ended) -> Outcome:
        """For doors: what an end of the handler means, by what was recorded before."""
        return ended if self.recorded is None else CompletedWithin(self.recorded, ended)

    @property
    def fate(self) -> Fate:
        """What was stated; RAN if nothing was."""
        return self._fate


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


def begin(execute: Execute, secret: bytes, keeper: Keeper | None = None) -> Operation:
    """For doors: make the operation of a handler that is about to run, current in this context.

    Args:
        execute: what is to run.
        secret: that keys are digested with.
        keeper: for operations that complete their own record; None refuses that.
    """
    begun = Operation(execute, secret, keeper)
    _current.set(begun)
    return begun
