"""`make bench`: what safety costs, as ratios to the same application without it, in the same run.

Exit codes: 0 every target kept; 1 a target missed, or something answered wrongly; 2 usage;
3 this machine cannot run it (what to install is said); 4 it was too busy with other things to tell.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.cases import CASES, Case, Group
from bench.load import SpoiltError
from bench.machine import describe
from bench.measure import Sample, Workshop
from bench.report import Round, as_json, foreign_shares, ratios, tables

KEPT, MISSED, UNFIT, INCONCLUSIVE = 0, 1, 3, 4
_ROUNDS_MIN = 5
_FOREIGN_MAX = 0.1  # of the machine; beyond it, ratios follow the neighbours
_PACKAGES = {"wrk": "wrk", "gcc": "gcc libc6-dev", "taskset": "util-linux"}


class UnfitError(Exception):
    """This machine cannot run the benchmark; the message says what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, judge; returns the exit code."""
    options = _options(arguments)
    try:
        _require_machine()
        with TemporaryDirectory(prefix="retrysafe-bench-", dir=options.folder) as folder:
            return _bench(options, Path(folder))
    except UnfitError as error:
        print(f"bench: {error}", file=sys.stderr)
        return UNFIT
    except SpoiltError as error:
        print(f"bench: spoilt: {error}", file=sys.stderr)
        return MISSED


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="Measure what safety costs, as ratios.")
    parser.add_argument("--rounds", type=_count, default=_ROUNDS_MIN, help="how often each case is measured")
    parser.add_argument("--seconds", type=_count, default=3, help="how long each measurement lasts")
    parser.add_argument("--only", type=Group, nargs="+", choices=list(Group), default=list(Group))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured here")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; a temporary folder is made in it")
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _bench(options: argparse.Namespace, folder: Path) -> int:
    machine = describe(folder)
    print("\n".join(f"{name}: {value}" for name, value in machine.items()) + "\n")
    workshop = Workshop(folder, _build_slow_fsync(folder), options.seconds)
    cases = [case for case in CASES if case.group in options.only]
    rounds = [_round(workshop, cases, number, options.rounds) for number in range(1, options.rounds + 1)]
    print(f"\n{tables(rounds)}\n")
    if options.json:
        options.json.write_text(as_json(machine, options.seconds, rounds), encoding="utf-8")
    return _verdict(rounds)


def _verdict(rounds: Sequence[Round]) -> int:
    if len(rounds) < _ROUNDS_MIN:
        print(f"Fewer than {_ROUNDS_MIN} rounds: a hint, not a result.")
    foreign = foreign_shares(rounds)
    print(f"Other processes used {statistics.median(foreign):.1%} of the machine (median; at most {max(foreign):.1%}).")
    missed = [ratio.target.what for ratio in ratios(rounds) if not ratio.kept]
    print(f"Targets missed: {'; '.join(missed)}." if missed else "Every target kept.")
    if statistics.median(foreign) > _FOREIGN_MAX:
        print(f"That is more than {_FOREIGN_MAX:.0%}: nothing is proved. Run it again on a quiet machine.")
        return INCONCLUSIVE
    return MISSED if missed else KEPT


def _round(workshop: Workshop, cases: Sequence[Case], number: int, of: int) -> Round:
    found: dict[str, Sample] = {}
    for case in cases:
        found[case.name] = sample = workshop.measure(case)
        seen = f"{sample.load.per_second:>9,.0f}/s  p50 {sample.load.p50_us:>7,} us  cpu {sample.cpu_us:6.1f} us"
        print(f"round {number} of {of}  {case.name:<26}{seen}", file=sys.stderr, flush=True)
    return found


def _require_machine() -> None:
    if (os.cpu_count() or 1) < 2:
        raise UnfitError("two processor cores are needed: one for the server, one for the load")
    missing = [package for tool, package in _PACKAGES.items() if shutil.which(tool) is None]
    if not missing:
        return
    install = f"apt-get install --yes {' '.join(missing)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise UnfitError(f"missing: {', '.join(missing)}. As root: {install}")
    print(f"bench: {install}", file=sys.stderr)
    done = subprocess.run(install.split(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnfitError(f"could not install {', '.join(missing)}: {done.stderr.strip()}")


def _build_slow_fsync(folder: Path) -> Path:
    shim = folder / "slow_fsync.so"
    source = Path(__file__).with_name("slow_fsync.c")
    command = ["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-o", str(shim), str(source), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnfitError(f"could not build {source.name}: {done.stderr.strip()}")
    return shim


if __name__ == "__main__":
    sys.exit(main())
