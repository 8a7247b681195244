"""The page of the documentation: the table between two markers, and the charts beside it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from retrysafe.errors import ConfigurationError
from retrysafe.lab.charts import Bar, chart
from retrysafe.lab.strategies.measure import Wanted
from retrysafe.lab.strategies.report import HEADS, Row, rows
from retrysafe.lab.strategies.run import Found

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def check(page: Path) -> None:
    """Before anything is measured: can it be written?

    Raises:
        ConfigurationError: there is no such page, or it has no markers.
    """
    if not page.is_file():
        raise ConfigurationError([f"--write-docs: there is no page {page}"])
    text = page.read_text("utf-8")
    if BEGIN not in text or END not in text:
        raise ConfigurationError([f"--write-docs: {page} has to have the markers {BEGIN} and {END}"])


def write(found: Found, wanted: Wanted, page: Path) -> None:
    """Put the table into the page, and the charts into a folder of its name.

    Raises:
        ConfigurationError: as `check`.
    """
    check(page)
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    folder = page.with_suffix("")
    folder.mkdir(exist_ok=True)
    table = rows(found.figures)
    images = []
    for name, (title, picture) in _pictures(table).items():
        (folder / f"{name}.svg").write_text(picture, "utf-8")
        images.append(f"![{title}]({folder.name}/{name}.svg)")
    parts = [_when(found, wanted, table), _table(table), *images]
    page.write_text(f"{before}{BEGIN}\n\n" + "\n\n".join(parts) + f"\n\n{END}{after}", "utf-8")


def _when(found: Found, wanted: Wanted, table: Sequence[Row]) -> str:
    faults = ", ".join(f"`{chance}`" for chance in wanted.chances)
    kills = max(row.figures.kills for row in table)
    return (
        f"{wanted.orders:,} orders for each strategy, from {wanted.clients} clients at once that wait "
        f"{wanted.timeout_s * 1_000:g} ms for an answer; faults {faults}, and {kills} processes killed and started "
        f"again; seed {wanted.seed}; {time.strftime('%Y-%m-%d', time.gmtime())}. p50, p99 and round trips are of "
        f"{wanted.calm_orders:,} orders of one client without faults.\n"
        f"Machine: {platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}; "
        f"Python {platform.python_version()}, {', '.join(found.versions)}."
    )


def _table(table: Sequence[Row]) -> str:
    lines = [f"| {' | '.join(HEADS)} |", f"|---|{'---:|' * (len(HEADS) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row.cells())} |" for row in table)])


def _pictures(table: Sequence[Row]) -> dict[str, tuple[str, str]]:
    """Title and SVG, by name."""
    of: dict[str, tuple[str, Callable[[Row], float], bool]] = {
        "duplicates": ("Duplicates in 100 orders", lambda row: _percent(row, "duplicates"), False),
        "lost": ("Lost orders in 100", lambda row: _percent(row, "lost"), False),
        "wrong": ("Wrong answers in 100 orders", lambda row: _percent(row, "wrong"), False),
        "latency": ("Added latency at the median, ms", lambda row: max(0.0, row.p50_ms), True),
        "trips": ("Added round trips for an order", lambda row: row.trips, True),
    }
    return {
        name: (title, chart(title, [_bar(row, value(row)) for row in table if not (added and row.is_baseline)]))
        for name, (title, value, added) in of.items()
    }


def _percent(row: Row, name: str) -> float:
    judged = row.figures.judged
    return 100 * float(getattr(judged, name)) / judged.operations


def _bar(row: Row, value: float) -> Bar:
    return Bar(row.figures.strategy.title, value, kind="bar" if row.figures.strategy.is_ours else "other")
