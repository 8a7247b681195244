"""One case again: `python -m prove.kill --store sqlite --mode manual --case "kill@before CompleteIfHeld #1"`.

It runs the case until a promise is broken, or as often as it is told to, and says what was seen. Exit codes: 0 all is
well; 1 a promise was broken; 2 usage.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from prove.kill.cases import situations
from prove.kill.forks import Forks
from prove.kill.modes import MODES, Mode
from prove.kill.orders import Case
from prove.kill.places import PLACES, place
from prove.kill.proof import prove
from prove.kill.rig import Rig
from prove.violated import Violated


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    options = _options(arguments)
    with TemporaryDirectory(prefix="retrysafe-prove-") as folder:
        Path(folder).chmod(0o755)  # a database's server is another user
        mode = MODES[options.mode]
        if options.case is None:
            _show_points(options.store, mode, Path(folder))
            return 0
        return _run(options.store, mode, options.case, options.times, Path(folder))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m prove.kill", description="Run one case of the proofs by kill.")
    parser.add_argument("--store", choices=list(PLACES), default="sqlite", help="where the records are")
    parser.add_argument("--mode", choices=list(MODES), default="manual", help="of the route")
    parser.add_argument(
        "--case", type=Case.parsed, help="what is done; without it, the points that there are are shown"
    )
    parser.add_argument("--times", type=int, default=20, help="how often, unless a promise is broken before")
    return parser.parse_args(arguments)


def _show_points(store: str, mode: Mode, folder: Path) -> None:
    with place(store, folder) as where, Forks(folder, where.url) as forks, Rig(mode, where, forks, folder) as rig:
        known = situations(mode)
        for (name, before), points in zip(known.items(), rig.points(list(known.values())), strict=True):
            print(f"{name}: {before or 'a new key'}")
            print(*(f"    {point}" for point in points), sep="\n")


def _run(store: str, mode: Mode, case: Case, times: int, folder: Path) -> int:
    def again(_: Rig, __: Mode) -> Iterator[Case]:
        yield from [case] * times

    action = case.shots[-1].action
    try:
        tally = prove(store, {action: again}, modes=[mode], folder=folder, told=lambda _: None)[action]
    except Violated as violated:
        print(*violated.sentences, sep="\n")
        if violated.evidence:
            print(f"\nWhat was seen: python -m retrysafe.lab.auditor {violated.kept()}")
        return 1
    print(f"{tally.cases} times, and every promise was kept: {tally}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
