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
        ending: a value of `protocol.answers.Ending`, or the code of the problem it was refused with.
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

    def __init__(self) -> None:
        self._warned: set[str] = set()

    def notice(self, event: Event) -> None:
        """Log one event."""
        if isinstance(event, Handled):
            if event.ending == "recorded-outside":
                self._warn_once(event.route)
            elif event.ending in _FAULTS_OF_HANDLERS:
                _log.warning(_FAULTS_OF_HANDLERS[event.ending], event.route)
            elif _log.isEnabledFor(logging.DEBUG):
                _log.debug("%s on %s", event.ending, event.route)
            return
        _log.warning("%s: %s", type(event).__name__, _WORDS[type(event)].format(event=event))

    def _warn_once(self, route: str) -> None:
        """It is as it is for every request of the route."""
        if route not in self._warned:
            self._warned.add(route)
            _log.warning(
                "%s is transactional, and its handler answered a success without operation().complete_within: "
                "it is at least once, and not exactly one commit; said once for each route",
                route,
            )


_FAULTS_OF_HANDLERS = {
    "classify-failed": "policy.classify of %s raised, or said what it may not; the answer was recorded",
    "rolled-back": "%s answered a success, and its transaction was rolled back; the client got a 500",
    "commit-pending": "%s answered before its transaction had ended, or the store was away; the client got a 500",
}


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
