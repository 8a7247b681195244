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


class IncompleteResponse(RetrysafeError):
    """The application returned before it had sent a complete response."""


class ClaimLost(RetrysafeError):
    """The claim of this operation is lost: another attempt holds it, or it was settled. Do nothing further."""


class StepUnknown(RetrysafeError):
    """A step of an earlier attempt may or may not have taken effect: the operation's outcome is unknown."""


class StepChanged(CallerError):
    """A step has another input than in an earlier attempt, under the same name: nothing was called."""


class StepMisused(CallerError):
    """A step cannot be taken like this."""
