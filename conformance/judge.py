"""One subject under `retrysafe verify`: the command, and what is kept of its report."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.environments import AbsentError
from conformance.catalogue import Subject
from conformance.places import CACHE, ROOT, NotServedError, served

_ORDER = '{"reference":"{{unique}}","quantity":1}'
OPERATIONS = {
    "slow": f"POST /orders?delay=1 {_ORDER}",
    "second": f"POST /refunds {_ORDER}",
    "path-1": f"POST /tickets/1 {_ORDER}",
    "path-2": f"POST /tickets/2 {_ORDER}",
    "read": "GET /orders?reference={{unique}}",
    "cookie": f"POST /sessions {_ORDER}",
    "decline": f"POST /orders?fail=decline {_ORDER}",
    "fail-before": f"POST /orders?fail=before {_ORDER}",
    "fail-after": f"POST /orders?fail=after {_ORDER}",
}
_BARE = "conformance/bare-profile.toml"
_JOBS = 6
_JUDGED_S_MAX = 3_600.0
_FINDING_CHARACTERS = 200


def command(url: str, *, bare_keys: bool = False, only: tuple[str, ...] = ()) -> list[str]:
    """The arguments of `retrysafe`."""
    operations = [word for name, text in OPERATIONS.items() for word in ("--with", f"{name}={text}")]
    cases = [word for id_ in only for word in ("--only", id_)]
    return [
        *("verify", "POST", f"{url}/orders", "--json", _ORDER, "--profile", _BARE if bare_keys else "ietf"),
        *("--account", "Authorization: Bearer alice", "--other-account", "Authorization: Bearer bob"),
        *("--effects", "GET /orders?reference={{unique}} $.total", *operations, *cases, "--jobs", str(_JOBS)),
    ]


def shown_command() -> str:
    """The command as a person types it."""
    return "retrysafe " + " \\\n    ".join(_grouped(command("http://127.0.0.1:8000")))


def _grouped(words: list[str]) -> list[str]:
    """The words with each option beside its value."""
    lines: list[str] = []
    for word in words:
        if word.startswith("--") or not lines:
            lines.append(word)
        else:
            lines[-1] += f" {shlex.quote(word)}"
    return lines


def judge(subject: Subject, cache: Path = CACHE, only: tuple[str, ...] = ()) -> dict[str, Any]:
    """Serve a subject and judge it; what is kept, as plain values.

    Args:
        subject: a package, or a door of ours.
        cache: where environments are kept.
        only: ids of cases; the core cases unless given.
    """
    kept: dict[str, Any] = {"name": subject.name, "version": subject.version, "date": time.strftime("%Y-%m-%d")}
    with tempfile.TemporaryDirectory() as folder:
        try:
            with served(subject, Path(folder), cache) as url:
                return kept | _report(
                    command(url, bare_keys=subject.bare_keys, only=only), Path(folder) / "report.json"
                )
        except (AbsentError, NotServedError) as error:
            return kept | {"absent": str(error).strip()}


def _report(arguments: list[str], report: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "retrysafe", *arguments, "--json-report", str(report)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=_JUDGED_S_MAX,
    )  # fmt: skip
    if not report.exists():
        raise NotServedError(f"retrysafe verify ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    cases = json.loads(report.read_text("utf-8"))["cases"]
    return {
        "cases": {case["id"]: case["verdict"] for case in cases},
        "findings": {
            case["id"]: [_short(case["findings"][0]["expected"]), _short(case["findings"][0]["seen"])]
            for case in cases
            if case["findings"]
        },
        "reasons": {case["id"]: _short(case["reason"]) for case in cases if case["verdict"] == "inconclusive"},
    }


def _short(text: str) -> str:
    return text if len(text) <= _FINDING_CHARACTERS else text[:_FINDING_CHARACTERS] + "..."
