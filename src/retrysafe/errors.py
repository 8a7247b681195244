"""Every error that retrysafe raises, in one tree.

The class says whose fault it is: `ConfigurationError` is the operator's, `StoreError` is the
store's, `CallerError` is a mistake in the code that called us. What a *client* did wrong is never
an exception here: it is a value, answered as a problem document (`protocol.problem`).

The docstring of a class is its default message.
"""

from __future__ import annotations

from collections.abc import Sequence


class RetrysafeError(Exception):
    """Something in retrysafe went wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())


class ConfigurationError(RetrysafeError):
    """The configuration cannot be used: the operator must change it.

    Args:
        faults: every fault found, one sentence each, naming the setting and what to do.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(self.faults))


class StoreError(RetrysafeError):
    """The store of records failed."""


class StoreUnavailable(StoreError):
    """The store of records cannot be reached now; the operation may or may not have been applied."""


class StoreUnusable(StoreError):
    """The store of records can be reached and must not be used: newer schema, other secret, unsafe place."""


class CallerError(RetrysafeError):
    """retrysafe was called in a way that cannot work: the calling code must change."""


class NoOperation(CallerError):
    """operation() was called outside a protected request: no idempotency key governs this code."""


class ClaimLost(RetrysafeError):
    """The claim of this operation was lost: another attempt has it, or an operator took it away. Let this raise, so
    that the transaction is rolled back.
    """


class IncompleteResponse(RetrysafeError):
    """The application returned before it had sent a complete response."""


class StepUnknown(RetrysafeError):
    """A step of an earlier attempt may or may not have taken effect: the operation's outcome is unknown."""


class StepChanged(CallerError):
    """A step has another input than in an earlier attempt, under the same name: nothing was called."""


class StepMisused(CallerError):
    """A step cannot be taken like this."""


class Refused(RetrysafeError):
    """A call under a key was not run, or its result cannot be given."""


class OperationInProgress(Refused):
    """The first call with this key is still running: call again later.

    Args:
        retry_after_s: when.
    """

    def __init__(self, retry_after_s: int = 1) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"The first call with this key is still running: call again in {retry_after_s} s.")


class OutcomeUnknown(Refused):
    """A call with this key was started and nobody knows how it ended: find out by other means; it is not run again."""


class KeyReused(Refused):
    """This key was first used with other arguments: a mistake of the calling code, which needs a key for each."""


class KeyExpired(Refused):
    """A call with this key was finished longer ago than its lifetime: find out what became of it before a new one."""


class ResultUnavailable(Refused):
    """The call was done, and its result was not kept, or cannot be read: it is not run again."""


class EarlierFailure(Refused):
    """The call with this key raised an exception that its function does not declare: it is not run again."""
