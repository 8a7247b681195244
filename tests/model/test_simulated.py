"""What the real flow, driver and store do in the simulator is in the model: each record of each run, move by move."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from model.tlc import SPECIFICATION, table
from model.traces import Move, faults
from retrysafe.lab.evidence import Mode
from retrysafe.lab.simulate.__main__ import replay_command
from retrysafe.lab.simulate.bugs.catalogue import BUGS
from retrysafe.lab.simulate.explore import run_seed, trace
from retrysafe.lab.simulate.worker import PRODUCT, Parts
from retrysafe.protocol.states import Event

MODEL = table(SPECIFICATION.read_text("utf-8"))
TRACES = 10_000 if os.environ.get("RETRYSAFE_PROVE") else 100  # of each mode

# Bugs that lead a record where it may not go. Others keep to the table and break its guards: the auditor finds those.
OFF_THE_TABLE = (
    "check-then-act", "reclaim-without-compare", "vanishing-claim", "reaps-the-living", "reruns-unknown", "lazy-sync",
)  # fmt: skip
SEEDS_MAX = 1_000


def traces(mode: Mode, seed: int, parts: Parts = PRODUCT) -> Iterator[tuple[str | None, list[Move]]]:
    """What each record of a run went through, and from which state; after a failover it goes on from an earlier one."""
    failed_over = False
    open_ended: dict[str, list[Move]] = {}
    for step in [*trace(run_seed(seed, mode, parts).evidence), None]:
        if step is None or step.action == "FAILOVER":
            for moves in open_ended.values():
                yield moves[0].before if failed_over else None, moves
            failed_over, open_ended = True, {}
        elif step.action in Event.__members__:
            move = Move(Event[step.action], step.before, step.after)
            open_ended.setdefault(step.key, []).append(move)


@pytest.mark.parametrize("mode", list(Mode))
def test_what_is_simulated_is_in_the_model(mode):
    """So many traces of each mode, of a world in which everything goes wrong."""
    events: set[str] = set()
    count = seed = 0
    while count < TRACES:
        seed += 1
        for stood, moves in traces(mode, seed):
            count += 1
            assert not list(faults(moves, MODEL, stood)), replay_command(mode, seed)
            events.update(move.event for move in moves)
    assert events >= {"claim", "renew", "complete", "release", "claim again", "expire", "forget"}


@pytest.mark.parametrize("name", OFF_THE_TABLE)
def test_a_planted_bug_is_not_in_the_model(name):
    """The simulated product with one of its bugs: soon a record does what no record of the model does."""
    (bug,) = (bug for bug in BUGS if bug.name == name)
    for seed in range(SEEDS_MAX):
        if any(list(faults(moves, MODEL, stood)) for stood, moves in traces(bug.mode, seed, bug.parts)):
            return
    raise AssertionError(f"{name} was not noticed in {SEEDS_MAX} runs")
