"""Traces of records, held against the model: did each record go only where the model lets it?

A trace is what happened to one record, in order: the event, the state before and the state after, with
None for no record. A simulated run, a store that is watched, or a dump of a history makes one; the model's
table judges it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple


class Move(NamedTuple):
    """One event in the life of a record; the event is named as `retrysafe.protocol.states.Event` has it."""

    event: str
    before: str | None
    after: str | None


def faults(trace: Sequence[Move], table: AbstractSet[Move], stood: str | None = None) -> Iterator[str]:
    """What in a trace the model does not let happen.

    Args:
        trace: of one record, in order.
        table: the moves of the model.
        stood: the state that the record had before; None if there was none.

    Returns:
        A sentence for each fault; nothing if the model has this trace.
    """
    for number, move in enumerate(trace, 1):
        if move.before != stood:
            yield f"move {number}, {move.event!r}: begins at {_name(move.before)}, but the record was {_name(stood)}"
        if move not in table:
            yield f"move {number}: {move.event!r} leads from {_name(move.before)} to {_name(move.after)} in no model"
        stood = move.after


def _name(state: str | None) -> str:
    return state or "absent"
