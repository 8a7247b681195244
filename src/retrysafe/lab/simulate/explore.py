"""Many runs: one for each seed, or every schedule of a small scenario."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from random import Random

from retrysafe.lab.evidence import Event, Evidence, Fault, Kind, Mode, as_line
from retrysafe.lab.simulate.choices import Bounded, Priorities, Uniform
from retrysafe.lab.simulate.loop import Choices
from retrysafe.lab.simulate.scenario import LEASE_S, FaultPlan, Interruption, Scenario, drawn, duel
from retrysafe.lab.simulate.worker import PRODUCT, Parts
from retrysafe.lab.simulate.world import Run, World
from retrysafe.value import value

Triple = tuple[str, str, str]


def run_seed(seed: int, mode: Mode, parts: Parts = PRODUCT) -> Run:
    """The run of a seed: everything in it follows from the seed and the mode."""
    random = Random(f"{mode} {seed}")  # noqa: S311 - it is to be repeated, not to be secret
    scenario = drawn(mode, random)
    choices: Choices = Priorities(random) if seed % 3 == 0 else Uniform(random)
    return World(scenario, choices, random, parts).run()


def run_delays(scenario: Scenario, delays: tuple[int, ...], parts: Parts = PRODUCT) -> tuple[Run, int]:
    """The run in which these decisions delay somebody; and how many decisions there were."""
    choices = Bounded(delays)
    run = World(scenario, choices, Random(0), parts).run()  # noqa: S311 - nothing is drawn from it
    return run, choices.decisions


def every_schedule(
    scenario: Scenario, delays_max: int, parts: Parts = PRODUCT
) -> Iterator[tuple[tuple[int, ...], Run]]:
    """All runs of a scenario with at most so many delays, each once.

    A delay changes nothing before it. So what can be delayed after the last delay is known from the run itself.
    """
    open_ended: list[tuple[int, ...]] = [()]
    while open_ended:
        delays = open_ended.pop()
        run, decisions = run_delays(scenario, delays, parts)
        yield delays, run
        if len(delays) < delays_max:
            first = delays[-1] + 1 if delays else 0
            open_ended.extend((*delays, decision) for decision in range(first, decisions))


INTERRUPTIONS = {
    kind.value.replace(" ", "-"): kind
    for kind in (Kind.CRASH, Kind.PAUSE, Kind.PARTITION, Kind.SHUTDOWN, Kind.STORE_AWAY)
}


def interrupted(mode: Mode, kind: Kind | None, step: int) -> Scenario:
    """A duel in which this happens to the first worker, or the store, after so many steps; None is a calm one."""
    if kind is None:
        return duel(mode)
    node = None if kind is Kind.STORE_AWAY else 0
    return duel(mode, Interruption(step, FaultPlan(0.0, kind, node, lasts_s=1.5 * LEASE_S)))


def every_interruption(
    mode: Mode, kind: Kind | None, delays_max: int, parts: Parts = PRODUCT
) -> Iterator[tuple[str, Run]]:
    """All duels with an interruption after any number of steps, and at most so many delays; by their names."""
    steps = run_delays(duel(mode), (), parts)[0].steps if kind is not None else 1
    for step in range(1, steps + 1):
        for delays, run in every_schedule(interrupted(mode, kind, step), delays_max, parts):
            yield f"{step}:{','.join(map(str, delays))}", run


def digest(evidence: Evidence) -> str:
    """Of everything that was seen, in order: two runs with the same one were the same run."""
    events: list[Event] = [
        *evidence.calls, *evidence.effects, *evidence.kept, *evidence.executions, *evidence.writes, *evidence.stored,
        *(evidence.rows or ()), *evidence.faults,
    ]  # fmt: skip
    return hashlib.sha256("\n".join(map(as_line, events)).encode()).hexdigest()[:16]


@value
class Step:
    """One action of a run, as the model of the protocol has it.

    Attributes:
        action: name of a `protocol.states.Event`, or EFFECT, CRASH, PAUSE, FAILOVER.
        worker: who did it, or whom it was done to.
        key: scope and key; empty if it was done to all of them.
        before, after: state of the record, None is absence; the same for what does not change it.
    """

    action: str
    worker: str
    key: str
    before: str | None
    after: str | None


_ACTIONS = {Kind.CRASH: "CRASH", Kind.PAUSE: "PAUSE", Kind.FAILOVER: "FAILOVER"}


def trace(evidence: Evidence) -> list[Step]:
    """What happened to the records, in order, without what was refused."""
    steps: list[tuple[int, Step]] = [
        (write.at_ns, Step(write.action, write.node, f"{write.scope}/{write.key}", write.before, write.after))
        for write in evidence.writes
        if write.took_effect
    ]
    steps += [
        (effect.at_ns, Step("EFFECT", effect.node, f"{effect.scope}/{effect.key}", None, None))
        for effect in evidence.effects
    ]
    steps += [
        (fault.at_ns, Step(_ACTIONS[fault.kind], fault.node, "", None, None))
        for fault in evidence.faults
        if fault.kind in _ACTIONS
    ]
    return [step for _, step in sorted(steps, key=lambda timed: timed[0])]


def coverage(runs: Iterable[Run]) -> Counter[Triple]:
    """How often each event was asked of each state beside each kind of fault; "" is none."""
    seen: Counter[Triple] = Counter()
    for run in runs:
        for write in run.evidence.writes:
            kinds = {fault.kind.value for fault in run.evidence.faults if _is_near(fault, write.at_ns)} or {""}
            seen.update((write.before or "absent", write.action, kind) for kind in kinds)
    return seen


def _is_near(fault: Fault, at_ns: int) -> bool:
    until_ns = max(fault.until_ns or fault.at_ns, fault.at_ns + 5_000_000_000)
    return fault.at_ns <= at_ns <= until_ns
