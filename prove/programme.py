"""The proofs, each with how much of it makes a whole one."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import PIPE, STDOUT

from model import checks, tlc
from prove.kill import proof
from prove.kill.modes import PROVED, Mode
from prove.kill.orders import Action
from prove.kill.places import PLACES
from prove.show import Told
from prove.violated import Violated
from retrysafe.lab import evidence
from retrysafe.lab.simulate.__main__ import replay_command
from retrysafe.lab.simulate.explore import run_seed
from retrysafe.lab.strategies import report as strategies_report
from retrysafe.lab.strategies.catalogue import STRATEGIES, Strategy
from retrysafe.lab.strategies.measure import Wanted
from retrysafe.lab.strategies.run import run as run_strategies
from retrysafe.verify.cases import CATALOGUE

ROOT = Path(__file__).parents[1]
_LINES_KEPT = 60
_SCHEDULES = 500
_IMAGES, _IMAGES_QUICK = 10_000, 300
_CHECKS = (*checks.HOLD, *checks.REFUTED, *checks.LIMITS, *checks.CAUGHT_TOO, *checks.LARGE)
_LEAVING = ("tests/drive/test_every_await.py", "tests/drive/test_cancellation.py", "tests/doors/test_every_byte.py")
_DOORS = "tests/verify/test_own_doors.py"
_APART = (  # what is a proof of its own here
    "tests/stores", "tests/protocol", "tests/prove", "tests/model/test_model.py", "tests/lab/test_simulator.py", _DOORS
)  # fmt: skip
_ORDERS_LEAST = 100  # of a rehearsal: fewer meet too few faults to show anything
_CALM_ORDERS = 1_000
_PERCENT = re.compile(r"\[ *(\d+)%\]$")


@dataclass(frozen=True, slots=True)
class Run:
    """What a proof is told.

    Attributes:
        count: how much to do.
        whole: that makes a whole proof.
        seed: that everything at random follows from.
        modes: in which protection is proved by killing.
        folder: for what is written; it goes afterwards.
        told: how much more is done.
    """

    count: int
    whole: bool
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
        modes = [mode for mode in order.modes if not mode.stores or store in mode.stores]
        each = max(1, -(-order.count // max(1, len(modes))))
        plan = {action: proof.some(action, order.seed, each, every=order.whole)}
        tally = proof.prove(store, plan, modes=modes, folder=order.folder, told=order.told)[action]
        return Done(tally.cases, str(tally), (tally.version,))

    return run


def _testing(*tests: str, whole: bool = True) -> Callable[[Run], Done]:
    """The tests under these paths; the count is the examples of each property, if they are to be the whole of it."""

    def run(order: Run) -> Done:
        command = [sys.executable, "-m", "pytest", "-v", "-o", "faulthandler_timeout=7200"]
        command += [f"--hypothesis-seed={order.seed}", *tests]
        variables = {"PYTHONPATH": "src", "RETRYSAFE_SEED": str(order.seed)}
        if whole:
            variables |= {"RETRYSAFE_PROVE": "1", "RETRYSAFE_EXAMPLES": str(order.count)}
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


def _simulating(order: Run) -> Done:
    """Schedules of every mode in turn, on every core."""
    modes = list(evidence.Mode)
    chunks = [
        (mode, order.seed + first, min(_SCHEDULES, each - first))
        for mode, each in zip(modes, _shares(order.count, len(modes)), strict=True)
        for first in range(0, each, _SCHEDULES)
    ]
    cores = ProcessPoolExecutor(os.cpu_count())
    try:
        for asked in as_completed([cores.submit(_simulated, *chunk) for chunk in chunks]):
            number, sentences, replay = asked.result()
            if sentences:
                raise Violated(sentences, shlex.split(replay))
            order.told(number)
    finally:  # whatever ends it, nothing more is begun
        cores.shutdown(cancel_futures=True)
    return Done(order.count, f"{len(modes)} modes, from seed {order.seed}")


def _shares(count: int, among: int) -> list[int]:
    return [count // among + (number < count % among) for number in range(among)]


def _simulated(mode: evidence.Mode, first: int, number: int) -> tuple[int, list[str], str]:
    """So many runs, in a process of their own: how many, what the first bad one violated, and what shows it again."""
    for seed in range(first, first + number):
        if violations := run_seed(seed, mode).violations:
            return number, [str(violation) for violation in violations], replay_command(mode, seed)
    return number, [], ""


def _checking(order: Run) -> Done:
    """The checks of the model: those that are over in seconds first."""
    states = 0
    for check in _CHECKS[: order.count]:
        is_large = check in checks.LARGE
        verdict = tlc.run(check, os.cpu_count() or 1 if is_large else 1)
        if not verdict.is_as_claimed:
            large = ["--large"] if is_large else []
            found = f"{check.name}: {verdict.violated or 'nothing'} is violated"
            raise Violated([found, verdict.output], ["python", "-m", "model", *large])
        states += verdict.states
        order.told(1)
    return Done(order.count, f"{states:,} states")


def _cutting(order: Run) -> Done:
    """Power cuts: ten thousand images, or the three hundred of `make test` where fewer are wanted."""
    path = "tests/stores/test_power_cuts.py"
    if order.count >= _IMAGES:
        return _testing(path)(order)
    done = _testing(path, whole=False)(order)
    return replace(done, count=_IMAGES_QUICK)


def _verifying(order: Run) -> Done:
    """Every case at every door; the core cases of `make test`, at its doors, where fewer are wanted."""
    if order.count >= len(CATALOGUE):
        return _testing(_DOORS)(order)
    done = _testing(_DOORS, whole=False)(order)
    return replace(done, count=sum(case.core for case in CATALOGUE))


def _comparing(order: Run) -> Done:
    """Every strategy under the same load and faults; retrysafe has no duplicate and loses nothing, and others do."""
    orders = max(_ORDERS_LEAST, order.count)
    wanted = Wanted(orders, order.seed, calm_orders=min(_CALM_ORDERS, orders))
    ended = shown = 0

    def begins(_: Strategy) -> Callable[[], None]:
        def advance() -> None:
            nonlocal ended, shown
            ended += 1
            done = ended * order.count // (wanted.orders * len(STRATEGIES))
            order.told(done - shown)
            shown = done

        return advance

    found = run_strategies(list(STRATEGIES.values()), wanted, begins)
    if wrong := strategies_report.findings(found.figures):
        replay = ["retrysafe", "lab", "strategies", "--orders", str(wanted.orders), "--seed", str(order.seed)]
        raise Violated([*wrong, *strategies_report.text(strategies_report.rows(found.figures))], replay)
    ours = [figures for figures in found.figures.values() if figures.strategy.is_ours]
    kills = sum(figures.kills for figures in ours)
    notes = f"{len(STRATEGIES)} strategies; retrysafe over {len(ours)} stores and modes: 0 duplicates, 0 lost, 0 wrong"
    return Done(wanted.orders, f"{notes}, {kills} of its processes killed", found.versions)


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
            1_000,
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
        Proof("power", "SQLite when the power is cut", "images of a disk", _IMAGES, _cutting),
        Proof(
            "leaving",
            "requests that are cancelled at every await, and clients that leave at every byte",
            "examples of each",
            5_000,
            _testing(*_LEAVING),
        ),
        Proof(
            "stores",
            "the contract of a store, and each store against the one in memory, at random",
            "examples of each",
            5_000,
            _testing("tests/stores", "--ignore=tests/stores/test_power_cuts.py"),
        ),
        Proof("properties", "every property of the protocol", "examples of each", 5_000, _testing("tests/protocol")),
        Proof(
            "tests",
            "all other tests, with more of everything",
            "examples of each",
            5_000,
            _testing("tests", *(f"--ignore={path}" for path in (*_APART, *_LEAVING))),
        ),
    ]
    return (_MODEL, _SIMULATOR, *kills, *stops, *stores, _VERIFY, _STRATEGIES, *tests)


_MODEL = Proof("model", "the protocol in TLA+: every state within bounds", "checks", len(_CHECKS), _checking)
_SIMULATOR = Proof(
    "simulate", "the whole of it in one simulated world, from seeds", "schedules", 1_000_000, _simulating
)

_VERIFY = Proof(
    "verify",
    "retrysafe verify at our own doors, over each store, with workers and stores that fail",
    "cases at each",
    len(CATALOGUE),
    _verifying,
)
_STRATEGIES = Proof(
    "strategies",
    "retries under faults and kills: what people do about them, and retrysafe, side by side",
    "orders of each",
    100_000,
    _comparing,
)

PROOFS = {one.name: one for one in _proofs()}
MODES = PROVED
