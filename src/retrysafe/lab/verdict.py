"""What an auditor says."""

from __future__ import annotations

from typing import Any

from retrysafe.lab.evidence import Event, as_line
from retrysafe.value import value

INVARIANTS = {
    "I1": "a key has at most one effect while it lives",
    "I1b": "a success that was acknowledged has its effect",
    "I2": "all outcomes that are given for a key are the same, and replays are marked",
    "I3": "an outcome that was given once is given to every later request",
    "I4": "a different request under the same key neither runs nor gets an answer",
    "I5": "no answer contains what belongs to another account",
    "I6": "when an owner dies, its key moves on within a lease",
    "I7": "every write by an owner is by the latest one",
    "I8": "an owner that is alive is not taken over from",
    "I9": "unknown is said only of what is unknown, and is left only by knowledge",
    "I10": "a transaction and its record are there both or neither",
    "I11": "a step that is done is not done again, and its key is its own and the same in each attempt",
    "I12": "no answer is replayed to a caller that may not see it now",
    "I13": "what was taken for a load is given back after it",
    "I15": "no secret stands in a dump or a log",
    "I16": "the same seed gives the same run",
}


@value
class Violation:
    """An invariant that does not hold, in one sentence, and the events that show it."""

    invariant: str
    sentence: str
    events: tuple[Event, ...] = ()

    def __str__(self) -> str:
        """The sentence, and below it each event as a line."""
        lines = [f"{self.invariant} ({INVARIANTS[self.invariant]}): {self.sentence}"]
        return "\n    ".join([*lines, *(as_line(event) for event in self.events)])


def named(event: Any) -> str:
    """How a sentence names the operation that an event belongs to."""
    return f"key {event.key!r} of scope {event.scope!r}"
