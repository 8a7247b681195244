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

from bench import growth, load, page, report
from bench.cases import CASES, Case, Group
from bench.engines import Engines
from bench.environments import AbsentError, python_of
from bench.load import SpoiltError
from bench.machine import describe
from bench.measure import Workshop
from bench.results import Count, Found, Results, saved
from bench.servers import ROOT

KEPT, MISSED, UNFIT, INCONCLUSIVE = 0, 1, 3, 4
_ROUNDS_MIN = 5
_FOREIGN_MAX = 0.1  # of the machine; beyond it, ratios follow the neighbours
_PACKAGES = {"wrk": "wrk", "gcc": "gcc libc6-dev", "taskset": "util-linux"}
_KEPT_IN = ROOT / "build" / "bench"
_PAGE = ROOT / "docs" / "benchmarks.md"


class UnfitError(Exception):
    """This machine cannot run the benchmark; the message says what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, judge; returns the exit code."""
    options = _options(arguments)
    if options.write_docs:
        page.inserted(_PAGE.read_text(encoding="utf-8"), "")  # before an hour is spent
    try:
        measured, spoilt = _bench(options)
    except UnfitError as error:
        print(f"bench: {error}", file=sys.stderr)
        return UNFIT
    everything = [known for group in Group if (known := saved(options.results, group))]
    measured = measured if options.only else everything
    if options.write_docs:
        page.write(everything, _PAGE, _PAGE.with_name("charts"))
    print(f"\n{report.text(measured)}\n")
    for group, why in spoilt.items():
        print(f"bench: {group} is spoilt, and what it measured is lost: {why}", file=sys.stderr)
    verdict = _verdict(measured)
    return MISSED if spoilt else verdict


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="Measure what safety costs, as ratios.")
    parser.add_argument("--rounds", type=_count, default=_ROUNDS_MIN, help="how often each case is measured")
    parser.add_argument("--seconds", type=_count, default=2, help="how long each measurement lasts")
    parser.add_argument(
        "--only", type=Group, nargs="*", choices=list(Group), default=list(Group), metavar="GROUP",
        help=f"groups of cases, of {', '.join(Group)}; none, with --write-docs, measures nothing",
    )  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="leave out groups that have been measured so often")
    parser.add_argument(
        "--results", type=Path, default=_KEPT_IN, help="where what was measured is kept, a file a group"
    )
    parser.add_argument(
        "--write-docs", action="store_true", help="write all that is kept there into docs/benchmarks.md"
    )
    parser.add_argument("--live", type=_count, default=growth.SIZES["many"], help="how many live records are many")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; a temporary folder is made in it")
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _bench(options: argparse.Namespace) -> tuple[list[Results], dict[Group, str]]:
    """What is known of the groups that are asked for, after measuring those that are to be; and what is spoilt."""
    known = {group: saved(options.results, group) for group in options.only} if options.resume else {}
    done = {group: one for group, one in known.items() if one and len(one.rounds) >= options.rounds}
    spoilt: dict[Group, str] = {}
    wanted = [group for group in Group if group in options.only and group not in done]
    if wanted:
        _require_machine()
        os.sched_setaffinity(0, {load.CORE})  # and whatever is started, unless it is put elsewhere
        with TemporaryDirectory(prefix="retrysafe-bench-", dir=options.folder) as folder:
            Path(folder).chmod(0o755)  # a database's server is another user
            machine = describe(Path(folder))
            print("\n".join(f"{name}: {value}" for name, value in machine.items()) + "\n", flush=True)
            for group in wanted:
                try:
                    done[group] = _group(group, options, Path(folder), machine)
                except SpoiltError as error:
                    print(f"bench: {group} is spoilt: {error}", file=sys.stderr, flush=True)
                    spoilt[group] = str(error).splitlines()[0]
                except (
                    RuntimeError,
                    subprocess.CalledProcessError,
                ) as error:  # a server's program is not here; the helper says what to install
                    raise UnfitError(str(error)) from error
                else:
                    done[group].save(options.results)
    return [done[group] for group in Group if group in done], spoilt


def _group(group: Group, options: argparse.Namespace, folder: Path, machine: dict[str, str]) -> Results:
    cases = [case for case in CASES if case.group is group]
    shim = _build_slow_fsync(folder)
    engines = Engines(folder, shim)
    pythons, absent = _pythons(cases, options.results / "peers")
    sizes = {**growth.SIZES, "many": options.live}
    workshop = Workshop(folder, shim, options.seconds, engines, pythons, sizes)
    cases = [case for case in cases if not case.door.peer or case.door.peer.name not in absent]
    of = options.rounds
    try:
        rounds = [_round(workshop, cases, number, of) for number in range(1, of + 1)]
    finally:
        engines.close()
    servers = ", ".join(f"{name} {version}" for name, version in engines.versions.items())
    filled = f"{options.live:,} live records" if group is Group.GROWTH else ""
    return Results(group, {**machine, "servers": servers, "filled": filled}, options.seconds, rounds, absent)


def _pythons(cases: Sequence[Case], folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """The interpreters of the peers, and what pip said of those that do not install."""
    found: dict[str, Path] = {}
    absent: dict[str, str] = {}
    for peer in dict.fromkeys(case.door.peer for case in cases if case.door.peer):
        try:
            found[peer.name] = python_of(peer, folder)
        except AbsentError as error:
            absent[peer.name] = str(error)
    return found, absent


def _round(workshop: Workshop, cases: Sequence[Case], number: int, of: int) -> dict[str, Found]:
    """Each case once, in turn; what is counted is counted in the first round only."""
    found: dict[str, Found] = {}
    for case in cases:
        if number > 1 and case.work.is_counted:
            continue
        found[case.name] = seen = workshop.measure(case)
        line = (
            f"{seen.value:9.2f} {case.work}"
            if isinstance(seen, Count)
            else f"{seen.per_second:>9,.0f}/s  p50 {seen.p50_us:>7,} us  cpu {seen.cpu_us:6.1f} us"
            f"{f'  failed {seen.failed}' if seen.failed else ''}{f'  wrong: {seen.wrong}' if seen.wrong else ''}"
        )
        print(f"{case.group} {number} of {of}  {case.name:<36}{line}", file=sys.stderr, flush=True)
    return found


def _verdict(results: Sequence[Results]) -> int:
    if not results:
        print("Nothing was measured.")
        return INCONCLUSIVE
    if any(len(one.rounds) < _ROUNDS_MIN for one in results):
        print(f"Fewer than {_ROUNDS_MIN} rounds: a hint, not a result.")
    foreign = report.foreign_shares(results) or [0.0]
    print(f"Other processes used {statistics.median(foreign):.1%} of the machine (median; at most {max(foreign):.1%}).")
    missed = [figure.target.what for figure in report.figures(results) if not figure.kept]
    print(f"Targets missed: {'; '.join(missed)}." if missed else "Every target kept.")
    if statistics.median(foreign) > _FOREIGN_MAX:
        print(f"That is more than {_FOREIGN_MAX:.0%}: nothing is proved. Run it again on a quiet machine.")
        return INCONCLUSIVE
    return MISSED if missed else KEPT


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
    if shim.exists():
        return shim
    source = Path(__file__).with_name("slow_fsync.c")
    command = ["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-o", str(shim), str(source), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnfitError(f"could not build {source.name}: {done.stderr.strip()}")
    return shim


if __name__ == "__main__":
    sys.exit(main())
