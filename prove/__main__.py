"""`make prove`: every proof in turn, until one of them finds something.

    python -m prove                                        # all of it; takes hours
    python -m prove --only kill-sqlite stop-sqlite         # some of it
    python -m prove --scale 0.01                           # a rehearsal
    python -m prove --list

Exit codes: 0 nothing was found; 1 a violation, with the command that shows it again; 2 usage.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from prove import report
from prove.kill.modes import MODES, PROVED
from prove.programme import PROOFS, ROOT, Proof, Run
from prove.report import Proved
from prove.show import progress, spoken
from prove.violated import KEPT_IN, Violated

_PAGE = ROOT / "docs" / "proof.md"
_REPORT = KEPT_IN / "report.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prove; returns the exit code."""
    options = _options(arguments)
    if options.list:
        print(*(f"{one.name:<15} {one.whole:>9,} {one.unit}: {one.shows}" for one in PROOFS.values()), sep="\n")
        return 0
    print(f"seed {options.seed}; the same again: --seed {options.seed}", file=sys.stderr, flush=True)
    proved: list[Proved] = []
    for name in options.only:
        try:
            proved.append(_prove(PROOFS[name], options))
        except Violated as violated:
            _tell(name, violated)
            return 1
    found = report.text(proved, options.seed, options.scale)
    _REPORT.parent.mkdir(parents=True, exist_ok=True)
    _REPORT.write_text(found + "\n", "utf-8")
    if options.write_docs:
        report.write(found, _PAGE)
    print(found)
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m prove", description="Run the proofs that take long.")
    parser.add_argument(
        "--only", nargs="+", choices=list(PROOFS), default=list(PROOFS), metavar="PROOF",
        help="which; --list names them",
    )  # fmt: skip
    parser.add_argument("--scale", type=_scale, default=1.0, help="how much of each; 1 is a whole proof")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32), help="of all chance")
    parser.add_argument(
        "--modes", nargs="+", choices=list(MODES), default=[mode.name for mode in PROVED], metavar="MODE",
        help=f"in which protection is proved by killing: {', '.join(MODES)}; the last one has to fail",
    )  # fmt: skip
    parser.add_argument("--write-docs", action="store_true", help="write the report into docs/proof.md too")
    parser.add_argument("--list", action="store_true", help="show the proofs, and what makes each a whole one")
    return parser.parse_args(arguments)


def _scale(text: str) -> float:
    scale = float(text)
    if not 0 < scale <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 100")
    return scale


def _prove(proof: Proof, options: argparse.Namespace) -> Proved:
    count = max(1, round(proof.whole * options.scale))
    began_s = time.monotonic()
    with TemporaryDirectory(prefix="retrysafe-prove-") as name, progress(proof.name, count) as told:
        folder = Path(name)
        folder.chmod(0o755)  # a database's server is another user
        modes = [MODES[mode] for mode in options.modes]
        done = proof.run(Run(count, count >= proof.whole, options.seed, modes, folder, told))
    took_s = time.monotonic() - began_s
    print(f"{proof.name}: {done.count:,} {proof.unit}, {done.notes}, {spoken(took_s)}", file=sys.stderr, flush=True)
    return Proved(proof, done, took_s)


def _tell(name: str, violated: Violated) -> None:
    print(f"\n{name}: a promise was broken.\n", file=sys.stderr)
    print(*violated.sentences, sep="\n", file=sys.stderr)
    print(f"\nThis shows it again:\n\n    {violated.replay}", file=sys.stderr)
    if violated.evidence:
        print(f"\nWhat was seen: python -m retrysafe.lab.auditor {violated.kept()}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
