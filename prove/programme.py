"""The proofs, each with how much of it makes a whole one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, STDOUT

from prove.kill import proof
from prove.kill.modes import PROVED, Mode
from prove.kill.orders import Action
from prove.kill.places import PLACES
from prove.show import Told
from prove.violated import Violated

ROOT = Path(__file__).parents[1]
_LINES_KEPT = 60
_PERCENT = re.compile(r"\[ *(\d+)%\]$")


@dataclass(frozen=True, slots=True)
class Run:
    """What a proof is told.

    Attributes:
        count: how much to do.
        seed: that everything at random follows from.
        modes: in which protection is proved by killing.
        folder: for what is written; it goes afterwards.
        told: how much more is done.
    """

    count: int
    seed: int
    modes: Sequence[Mode]
    folder: Path
    told: Told


@dataclass(frozen=True, slots=True)
class Done:
    """What came of it.

    Attributes:
        count: what was done of it.
        notes: about it.
        versions: of what it was done with.
    """

    count: int
    notes: str = ""
    versions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Proof:
    """One of them.

    Attributes:
        name: for command lines.
        shows: in one sentence.
        unit: what is counted.
        whole: how many make it whole.
        run: does it.
    """

    name: str
    shows: str
    unit: str
    whole: int
    run: Callable[[Run], Done]


def _killing(store: str, action: Action) -> Callable[[Run], Done]:
    def run(order: Run) -> Done:
        each = max(1, order.count // len(order.modes))
        tally = proof.prove(
            store,
            action,
            modes=order.modes,
            select=proof.some(action, order.seed, each),
            folder=order.folder,
            told=order.told,
        )
        return Done(tally.cases, str(tally), (tally.version,))

    return run


def _testing(*tests: str) -> Callable[[Run], Done]:
    """The tests under these paths with more examples for each property; the count is the examples of one."""

    def run(order: Run) -> Done:
        command = [sys.executable, "-m", "pytest", "-v", "-o", "faulthandler_timeout=7200"]
        command += [f"--hypothesis-seed={order.seed}", *tests]
        variables = {"RETRYSAFE_PROVE": "1", "RETRYSAFE_EXAMPLES": str(order.count), "PYTHONPATH": "src"}
        last, shown = [""], 0
        with subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **variables}, stdout=PIPE, stderr=STDOUT, text=True
        ) as process:
            assert process.stdout is not None, "it was asked for"
            for line in process.stdout:
                last = [*last[-_LINES_KEPT:], line.rstrip()]
                if percent := _PERCENT.search(line):
                    done = order.count * int(percent[1]) // 100
                    order.told(done - shown)
                    shown = done
        if process.returncode:
            settings = [f"{name}={setting}" for name, setting in variables.items()]
            raise Violated(last, ["env", *settings, *command])
        return Done(order.count, last[-1].strip("= "))

    return run


def _proofs() -> tuple[Proof, ...]:
    kills = [
        Proof(
            f"kill-{store}",
            f"processes over {store}, killed at every failpoint and at random",
            "kills",
            10_000 if store == "sqlite" else 1_000,
            _killing(store, Action.KILL),
        )
        for store in PLACES
    ]
    stops = [
        Proof(
            f"stop-{store}",
            f"processes over {store}, stopped beyond their lease at every failpoint",
            "stops",
            600,
            _killing(store, Action.STOP),
        )
        for store in PLACES
    ]
    stores = [
        Proof(
            f"die-{store}",
            f"{store} itself, killed at every failpoint of the processes that use it",
            "deaths",
            1_000,
            _killing(store, Action.STORE),
        )
        for store in PLACES
        if store != "sqlite"
    ]
    tests = [
        Proof(
            "stores",
            "the contract of a store, and each store against the one in memory, at random",
            "examples of each",
            5_000,
            _testing("tests/stores"),
        ),
        Proof("properties", "every property of the protocol", "examples of each", 5_000, _testing("tests/protocol")),
    ]
    return (*kills, *stops, *stores, *tests)


PROOFS = {one.name: one for one in _proofs()}
MODES = PROVED
