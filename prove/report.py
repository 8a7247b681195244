"""What was proved, as a table, and the page that carries the last one between two markers."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from prove.programme import Done, Proof
from prove.show import spoken

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


@dataclass(frozen=True, slots=True)
class Proved:
    """One proof that went through.

    Attributes:
        proof: which.
        done: what came of it.
        seconds: that it took.
    """

    proof: Proof
    done: Done
    seconds: float


def text(proved: Sequence[Proved], seed: int, scale: float) -> str:
    """The report."""
    versions = dict.fromkeys(version for one in proved for version in one.done.versions)
    ours = metadata.version("retrysafe")
    whole = "whole" if scale >= 1 else f"at a scale of {scale:g}: a rehearsal, and no proof"
    lines = [
        f"Seed {seed}, {whole}; {time.strftime('%Y-%m-%d', time.gmtime())}; no violation.",
        f"Machine: {platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}.",
        f"Versions: {', '.join([f'retrysafe {ours}', f'Python {platform.python_version()}', *versions])}.",
        "",
        "| proof | what it shows | done | violations | took |",
        "|---|---|---|---|---|",
    ]
    for one in proved:
        done = f"{one.done.count:,} {one.proof.unit}{f' ({one.done.notes})' if one.done.notes else ''}"
        lines.append(f"| `{one.proof.name}` | {one.proof.shows} | {done} | 0 | {spoken(one.seconds)} |")
    return "\n".join(lines)


def write(report: str, page: Path) -> None:
    """Put the report into the page.

    Raises:
        ValueError: the page has no markers.
    """
    before, begin, rest = page.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has to have the markers {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{report}\n\n{END}{after}", "utf-8")
