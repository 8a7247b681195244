"""`python -m model [--large]`: check everything, and say of each check how many states it has and what came of it."""

from __future__ import annotations

import argparse
import os
import sys

from model.checks import CAUGHT_TOO, HOLD, LARGE, LIMITS, REFUTED, Check
from model.tlc import run


def main() -> int:
    """Run the checks; 1 if one of them came out otherwise than claimed."""
    parser = argparse.ArgumentParser(prog="python -m model", description="Check the protocol with TLC.")
    parser.add_argument("--large", action="store_true", help="the large checks, which take minutes each")
    large = parser.parse_args().large
    threads = (os.cpu_count() or 1) if large else 1
    checks = LARGE if large else (*HOLD, *REFUTED, *LIMITS, *CAUGHT_TOO)
    surprises = [check.name for check in checks if not _told(check, threads)]
    return 1 if surprises else 0


def _told(check: Check, threads: int) -> bool:
    verdict = run(check, threads)
    outcome = f"refuted by {verdict.violated}" if verdict.violated else "holds"
    surprise = "" if verdict.is_as_claimed else "  NOT AS CLAIMED"
    print(f"{check.name:52} {verdict.states:>10,} states  {outcome}{surprise}", flush=True)
    if surprise:
        print(verdict.output)
    return verdict.is_as_claimed


if __name__ == "__main__":
    sys.exit(main())
