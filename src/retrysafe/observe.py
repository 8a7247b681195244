"""What the engine says of itself: events as values, to a hook of one method.

The default hook logs. Keys, contents and credentials never appear; a record is named by the first
eight hexadecimal digits of its id, which is a keyed digest (contract R113).
"""

from __future__ import annotations

import logging
from typing import Protocol

from retrysafe.value import value

_log = logging.getLogger("retrysafe")


@value
class Handled:
    """A request that asked for protection has ended.

    Attributes:
        ending: a value of `protocol.flow.Ending`, or the code of the problem it was refused with.
        route: the entry of the routes table that matched, or `*`.
    """

    ending: str
    route: str


@value
class StoreFailed:
    """The store failed an operation.

    Attributes:
        operation: name of the transition.
        reason: the store's words.
    """

    operation: str
    reason: str


@value
class Unrecorded:
    """An outcome could not be recorded until the end of its lease: the record will become unknown."""

    record: str


@value
class ClaimLost:
    """An owner found at renewal that its claim no longer holds."""

    record: str


@value
class Overdue:
    """A handler runs longer than `execution_max`; its claim is no longer renewed."""

    record: str


@value
class CutOff:
    """Handlers were cancelled because shutting down would not wait longer.

    Attributes:
        handlers: how many.
    """

    handlers: int


Event = Handled | StoreFailed | Unrecorded | ClaimLost | Overdue | CutOff


class Observer(Protocol):
    """Told of every event, on the thread or loop where it happens; must be quick and must not raise."""

    def notice(self, event: Event) -> None:
        """Take note of one event."""


class LogObserver:
    """Writes events to the logger `retrysafe`: what needs a person as a warning, the rest for debugging."""

    def notice(self, event: Event) -> None:
        """Log one event."""
        if isinstance(event, Handled):
            if event.ending == "classify-failed":
                _log.warning(
                    "policy.classify of %s raised, or said what it may not; the answer was recorded", event.route
                )
            elif _log.isEnabledFor(logging.DEBUG):
                _log.debug("%s on %s", event.ending, event.route)
            return
        _log.warning("%s: %s", type(event).__name__, _WORDS[type(event)].format(event=event))


_WORDS: dict[type, str] = {
    StoreFailed: "{event.operation} failed in the store: {event.reason}",
    Unrecorded: "the outcome of record {event.record} could not be recorded before its lease ended; it will be unknown",
    ClaimLost: "record {event.record} was taken over or settled while its handler ran; see the lease of its policy",
    Overdue: "the handler of record {event.record} runs longer than execution_max; its lease is not renewed further",
    CutOff: "{event.handlers} handlers were cancelled at shutdown; their records are unknown",
}


def name_of(record_id: bytes) -> str:
    """How events and logs name a record."""
    return record_id[:4].hex()
