"""Judges every subject, and prints or writes what came of it: `python -m conformance.run [NAME...] [--write-docs]`."""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from conformance.catalogue import EVERY
from conformance.judge import judge
from conformance.page import PAGE, RECORD, line_of, page
from conformance.places import CACHE
from retrysafe import __version__

_AT_ONCE = 3


def main() -> int:
    """Judge, and say so."""
    parser = argparse.ArgumentParser(prog="python -m conformance.run", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a package or a door; all of them unless given")
    parser.add_argument("--write-docs", action="store_true", help="write the record, and the page made from it")
    options = parser.parse_args()
    known = {subject.name: subject for subject in EVERY}
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"there is no {', '.join(unknown)}; known are {', '.join(known)}")
    wanted = [known[name] for name in options.names] or list(EVERY)
    CACHE.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for done in as_completed([pool.submit(judge, subject) for subject in wanted]):
            kept = done.result()
            print(line_of(kept), flush=True)
            if options.write_docs:  # at once: all of it takes long
                _write(kept)
    return 0


def _write(kept: dict[str, Any]) -> None:
    record = _merged(json.loads(RECORD.read_text("utf-8")) if RECORD.exists() else {}, kept)
    RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")
    PAGE.write_text(page(record), "utf-8")


def _merged(before: dict[str, Any], kept: dict[str, Any]) -> dict[str, Any]:
    """The record with what is new in place of what was; each subject says when it was judged."""
    results = {each["name"]: each for each in (*before.get("subjects", ()), kept)}
    return {
        "retrysafe": __version__,
        "python": platform.python_version(),
        "node": _node(),
        "subjects": [results[subject.name] for subject in EVERY if subject.name in results],
    }


def _node() -> str:
    node = shutil.which("node")
    done = node and subprocess.run([node, "--version"], capture_output=True, text=True, check=True)
    return done.stdout.strip().removeprefix("v") if done else ""


if __name__ == "__main__":
    sys.exit(main())
