"""A store, actions, and so many cases of each in every mode; the first that breaks a promise ends it."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from prove.kill.cases import at_random, enumerated
from prove.kill.forks import Forks
from prove.kill.handlers import LEASE_MS
from prove.kill.judge import faults
from prove.kill.modes import Mode
from prove.kill.orders import Action, Case
from prove.kill.places import place
from prove.kill.rig import Rig, StuckError, Trial
from prove.violated import Violated
from retrysafe.lab.evidence import Event, Fault, Kind, as_line

# So many keys at a time: one wait for a lease, or one death of a store, is for all of them.
_BATCH = {Action.KILL: 16, Action.STOP: 8, Action.STORE: 12, Action.NONE: 16}
_NS = 1_000_000

Select = Callable[[Rig, Mode], Iterator[Case]]
"""The cases of one mode."""


@dataclass(slots=True)
class Tally:
    """What was done.

    Attributes:
        cases: that were judged.
        hurt: attempts that were killed, stopped, or had their store killed under them.
        points: different ones, of all situations and modes.
        passed_by: cases in which an attempt took another way than to its point.
        late_ms: for each key, how long after its lease a retry was settled.
        version: of the store.
    """

    cases: int = 0
    hurt: int = 0
    points: set[tuple[str, str]] = field(default_factory=set)
    passed_by: int = 0
    late_ms: list[float] = field(default_factory=list)
    version: str = ""

    def add(self, mode: Mode, trial: Trial) -> None:
        """Count one."""
        self.cases += 1
        pairs = list(zip(trial.case.shots, trial.traces, strict=True))
        reached = [(mode.name, shot.point) for shot, trace in pairs if shot.point and shot.point in trace]
        self.hurt += len(reached)
        self.points.update(reached)
        self.passed_by += len(reached) < sum(bool(shot.point) for shot, _ in pairs)
        died_ns = [event.at_ns for event in trial.seen if isinstance(event, Fault) and event.kind is Kind.CRASH]
        if died_ns:
            began_ns, settled_ns = trial.retried
            self.late_ms.append((settled_ns - max(began_ns, died_ns[-1] + LEASE_MS * _NS)) / _NS)

    def __str__(self) -> str:
        words = f"{self.hurt:,} at {len(self.points):,} points"
        if self.passed_by:
            words += f"; {self.passed_by:,} cases went another way"
        if len(self.late_ms) > 1:
            p99 = statistics.quantiles(self.late_ms, n=100)[98]
            words += f"; settled within {max(p99, 0.0):,.0f} ms of the end of the lease, p99"
        return words


def prove(
    store: str,
    plan: Mapping[Action, Select],
    *,
    modes: Sequence[Mode],
    folder: Path,
    told: Callable[[int], None],
) -> dict[Action, Tally]:
    """Run the cases that are selected for each mode, and judge each.

    Args:
        store: name of a place.
        plan: the cases, by what happens at their points.
        modes: in turn.
        folder: for everything that is written.
        told: how many more cases are done.

    Returns:
        What was done, by what happened at the points.

    Raises:
        Violated: by the first that is wrong.
    """
    with place(store, folder) as where, Forks(folder, where.url) as forks:
        tallies = {action: Tally(version=where.version()) for action in plan}
        for mode in (one for one in modes if not one.stores or store in one.stores):
            own = folder / mode.name
            own.mkdir()
            with Rig(mode, where, forks, own) as rig:
                for action, select in plan.items():
                    for batch in _batches(select(rig, mode), _batch(store, mode, action)):
                        for trial in _ran(rig, store, batch):
                            _judge(store, mode, trial)
                            tallies[action].add(mode, trial)
                        told(len(batch))
    return tallies


def _batches(cases: Iterator[Case], size: int) -> Iterator[list[Case]]:
    while batch := list(islice(cases, size)):
        yield batch


def _batch(store: str, mode: Mode, action: Action) -> int:
    """So many keys at a time; one, where a process that stops in its transaction would hold up the others."""
    return 1 if (store, action) == ("sqlite", Action.STOP) and mode.stores else _BATCH[action]


def _ran(rig: Rig, store: str, batch: Sequence[Case]) -> list[Trial]:
    try:
        return rig.run(batch)
    except StuckError as stuck:
        found = f"I6 (when an owner dies, its key moves on within a lease): {stuck}, in {stuck.case}"
        raise Violated([found], _replay(store, rig.mode, stuck.case)) from stuck


def _replay(store: str, mode: Mode, case: Case) -> list[str]:
    return ["python", "-m", "prove.kill", "--store", store, "--mode", mode.name, "--case", str(case)]


def _judge(store: str, mode: Mode, trial: Trial) -> None:
    found = list(faults(trial))
    if found:
        assert trial.evidence is not None, "the trial is not over"
        replay = _replay(store, mode, trial.case)
        made: list[Event] = [*trial.evidence.effects, *trial.evidence.kept, *(trial.evidence.rows or ())]
        seen = [*trial.seen, *made, *trial.evidence.stored]
        raise Violated(found, replay, [as_line(trial.evidence.rules), *map(as_line, seen)])


def every_point(action: Action) -> Select:
    """Each point of each situation once."""
    return lambda rig, _: iter(enumerated(rig, [action]))


def some(action: Action, seed: int, number: int, *, every: bool) -> Select:
    """So many: every point once, and the rest at random; or, unless it has to be `every` point, a choice of them."""

    def select(rig: Rig, mode: Mode) -> Iterator[Case]:
        known = enumerated(rig, [action])
        if number < len(known) and not every:
            yield from random.Random(f"{seed} {mode.name}").sample(known, number)  # noqa: S311 - the same again
            return
        yield from known
        yield from at_random(rig, action, seed, max(0, number - len(known)))

    return select


def a_share(action: Action, seed: int, of: int) -> Select:
    """One in so many points of all situations, chosen by a seed."""

    def select(rig: Rig, mode: Mode) -> Iterator[Case]:
        known = enumerated(rig, [action])
        yield from random.Random(f"{seed} {mode.name} {action}").sample(known, max(1, len(known) // of))  # noqa: S311 - the same again

    return select
