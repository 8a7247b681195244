"""What became of operations whose clients retried: what they were told, held against the effects that were counted."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class End(StrEnum):
    """What the client of an operation knows when it stops."""

    DONE = "done"  # it was told a success
    REFUSED = "refused"  # it was told that it is not done, and is not to come again
    UNKNOWN = "unknown"  # it was told that nobody knows
    OPEN = "open"  # it gave up: nothing final ever came


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation, over.

    Attributes:
        name: of it.
        end: what its client knows.
        successes: every answer that said it is done, as far as it can be compared.
        attempts: how many requests its client sent.
        faults: that these met, by the names of their kinds.
    """

    name: str
    end: End
    successes: Sequence[object]
    attempts: int
    faults: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Judged:
    """What is wrong with a run, and how much of it there was.

    Attributes:
        operations: how many there were.
        attempts: requests that their clients sent.
        faulty: operations that met at least one fault.
        ends: how many ended how.
        duplicates: effects beyond the first of an operation.
        lost: operations whose client was told that they are done, and have no effect.
        wrong: operations that had two different successes, or were refused although they had been done.
        examples: some names for each of these.
    """

    operations: int
    attempts: int
    faulty: int
    ends: dict[End, int]
    duplicates: int
    lost: int
    wrong: int
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.duplicates or self.lost or self.wrong)


_EXAMPLES_MAX = 5


def judge(operations: Iterable[Operation], effects: Mapping[str, int], *, refusals_are_losses: bool = False) -> Judged:
    """Hold what clients were told against what happened.

    Args:
        operations: all of them.
        effects: how many effects each had, by name; none if it is not there.
        refusals_are_losses: nothing was wrong with any operation, so that one that was refused is lost too.
    """
    final = {End.DONE, End.REFUSED} if refusals_are_losses else {End.DONE}
    ends = dict.fromkeys(End, 0)
    examples: dict[str, list[str]] = {"duplicates": [], "lost": [], "wrong": []}
    counts = dict.fromkeys(examples, 0)
    total = attempts = faulty = 0
    for operation in operations:
        total += 1
        attempts += operation.attempts
        faulty += bool(operation.faults)
        ends[operation.end] += 1
        for what, count in _wrongs(operation, effects.get(operation.name, 0), final).items():
            counts[what] += count
            if count and len(examples[what]) < _EXAMPLES_MAX:
                examples[what].append(operation.name)
    return Judged(total, attempts, faulty, ends, counts["duplicates"], counts["lost"], counts["wrong"], examples)


def _wrongs(operation: Operation, effects: int, final: Collection[End]) -> dict[str, int]:
    differ = len(set(operation.successes)) > 1
    refused_though_done = operation.end is End.REFUSED and effects > 0
    return {
        "duplicates": max(0, effects - 1),
        "lost": int(operation.end in final and effects == 0),
        "wrong": int(differ or refused_though_done),
    }
