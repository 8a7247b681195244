"""The handle that a handler has on its own operation: `operation()`."""

from __future__ import annotations

from contextvars import ContextVar

from retrysafe.errors import NoOperation
from retrysafe.protocol import key
from retrysafe.protocol.effects import Execute, Fate


class Operation:
    """The operation that the running handler carries out.

    Attributes:
        key: the idempotency key as the client means it, without quotes. Treat it like personal data.
        scope: the account that the key belongs to.
        attempt: 1 for the first execution; higher after a release or a takeover.
    """

    __slots__ = ("_fate", "_record_id", "_secret", "attempt", "key", "scope")

    def __init__(self, execute: Execute, secret: bytes) -> None:
        self.key = execute.key.text
        self.scope = execute.scope
        self.attempt = execute.claim.attempt
        self._record_id = execute.claim.record_id
        self._secret = secret
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
        return key.child_key(self._secret, self._record_id, name, target)

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


def begin(execute: Execute, secret: bytes) -> Operation:
    """For doors: make the operation of a handler that is about to run, current in this context."""
    begun = Operation(execute, secret)
    _current.set(begun)
    return begun
