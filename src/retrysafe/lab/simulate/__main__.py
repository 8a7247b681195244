"""Runs simulations from the command line.

    python -m retrysafe.lab.simulate --mode manual --seeds 10000        many seeds, up to the first violation
    python -m retrysafe.lab.simulate --mode manual --seed 42 --trace    one seed again, with what happened
    python -m retrysafe.lab.simulate --duel calm --delays 2             every schedule of a small scenario
    python -m retrysafe.lab.simulate --bug unfenced-complete            a planted bug, up to its find
    python -m retrysafe.lab.simulate --bugs                             all of them, and how long each took

Exit codes: 0 nothing was violated, 1 something was, 2 it was called wrongly.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence

from retrysafe.lab.evidence import Effect, Fault, Mode, Write, as_line
from retrysafe.lab.simulate.bugs.catalogue import BUGS, SCHEDULES_MAX, Bug, find
from retrysafe.lab.simulate.explore import INTERRUPTIONS, every_interruption, interrupted, run_delays, run_seed, trace
from retrysafe.lab.simulate.worker import PRODUCT, Parts
from retrysafe.lab.simulate.world import Run

_COMMAND = "python -m retrysafe.lab.simulate"


def replay_command(mode: Mode, seed: int, bug: str = "") -> str:
    """What prints a run again."""
    planted = f" --bug {bug}" if bug else ""
    return f"{_COMMAND} --mode {mode} --seed {seed}{planted} --trace"


def described(run: Run, *, traced: bool) -> str:
    """What is wrong with a run, and if wanted what happened in it."""
    lines = [str(violation) for violation in run.violations] or ["no violations"]
    if traced:
        events: list[Write | Effect | Fault] = [*run.evidence.writes, *run.evidence.effects, *run.evidence.faults]
        lines += [as_line(event) for event in sorted(events, key=lambda event: event.at_ns)]
        lines += [as_line(call) for call in run.evidence.calls]
        lines += [as_line(execution) for execution in run.evidence.executions]
        lines += [
            f"{step.action:10} {step.worker:8} {step.key:10} {step.before} -> {step.after}"
            for step in trace(run.evidence)
        ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; the exit code."""
    parser = argparse.ArgumentParser(prog=_COMMAND, description="Simulate retrysafe in a hostile world.")
    parser.add_argument("--mode", type=Mode, choices=list(Mode), default=Mode.MANUAL, help="what the route promises")
    parser.add_argument("--seed", type=int, help="one run")
    parser.add_argument("--seeds", type=int, default=10_000, metavar="N", help="how many runs (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="the first seed of them")
    parser.add_argument("--bug", choices=[bug.name for bug in BUGS], help="plant this bug")
    parser.add_argument("--bugs", action="store_true", help="plant each bug in turn, and say how long its find takes")
    parser.add_argument("--duel", choices=["calm", *INTERRUPTIONS], help="every schedule of two workers and a key")
    parser.add_argument("--delays", type=int, default=2, metavar="N", help="how many delays at most in it")
    parser.add_argument("--schedule", metavar="STEP:DELAYS", help="one schedule of it")
    parser.add_argument("--trace", action="store_true", help="show what happened")
    options = parser.parse_args(arguments)
    if options.bugs:
        return _bugs()
    bug = next((bug for bug in BUGS if bug.name == options.bug), None)
    mode, parts = (options.mode, PRODUCT) if bug is None else (bug.mode, bug.parts)
    if options.duel:
        return _duel(options, mode, parts)
    seeds = range(options.first, options.first + options.seeds) if options.seed is None else (options.seed,)
    return _seeds(seeds, mode, parts, bug, traced=options.trace)


def _seeds(seeds: Sequence[int], mode: Mode, parts: Parts, bug: Bug | None, *, traced: bool) -> int:
    for count, seed in enumerate(seeds, 1):
        run = run_seed(seed, mode, parts)
        if run.violations or len(seeds) == 1:
            _say(described(run, traced=traced))
        if run.violations:
            _say(f"found by run {count}; again: {replay_command(mode, seed, bug.name if bug else '')}")
            return 1
    _say(f"{len(seeds)} runs of mode {mode}, no violations")
    return 0


def _bugs() -> int:
    counts = []
    for bug in BUGS:
        count, run = find(bug)
        counts.append(count)
        found = "not found" if run is None else ", ".join(sorted({violation.invariant for violation in run.violations}))
        _say(f"{bug.name:24} {count:6}  {found:12}  {bug.sentence}")
    _say(f"{len(BUGS)} bugs; schedules until found: median {statistics.median(counts):g}, most {max(counts)}")
    return 0 if max(counts) < SCHEDULES_MAX else 1


def _duel(options: argparse.Namespace, mode: Mode, parts: Parts) -> int:
    kind = INTERRUPTIONS.get(options.duel)
    if options.schedule is not None:
        step, _, said = options.schedule.partition(":")
        delays = tuple(int(number) for number in said.split(",") if number)
        run, _ = run_delays(interrupted(mode, kind, int(step)), delays, parts)
        _say(described(run, traced=options.trace))
        return 1 if run.violations else 0
    count = 0
    for schedule, run in every_interruption(mode, kind, options.delays, parts):
        count += 1
        if run.violations:
            _say(described(run, traced=options.trace))
            _say(f"again: {_COMMAND} --mode {mode} --duel {options.duel} --schedule {schedule} --trace")
            return 1
    _say(f"all {count} schedules of {options.duel} in mode {mode} with at most {options.delays} delays, no violations")
    return 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
