"""The results in docs/benchmarks.md, between two markers, and the charts beside it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from bench.cases import Group
from bench.charts import Bar, chart
from bench.report import figures, foreign_shares, of_cases, of_peers, of_targets, standings
from bench.results import Results

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
_CHARTS = {
    "first": ("First requests a second, as a ratio to the bare application", "first request / bare", ""),
    "replay": ("Replays a second, as a ratio to first requests of the bare application", "replay / bare", ""),
    "latency": ("p50 at one connection, as a multiple of the bare application's", "p50 at c=1, ", ""),
    "commit": ("Group commit with an fsync slowed by 1 ms, as a multiple of without", "group commit / ", "at c=256"),
}


def write(results: Sequence[Results], page: Path, charts: Path) -> None:
    """Put the tables into the page, and the charts into their folder.

    Raises:
        ValueError: the page has no markers.
    """
    charts.mkdir(parents=True, exist_ok=True)
    pictures = _pictures(results)
    for name, (_, picture) in pictures.items():
        (charts / f"{name}.svg").write_text(picture, encoding="utf-8")
    images = [f"![{title}]({charts.name}/{name}.svg)" for name, (title, _) in pictures.items()]
    page.write_text(inserted(page.read_text(encoding="utf-8"), _sections(results, images)), encoding="utf-8")


def inserted(text: str, section: str) -> str:
    """The text with this between its markers.

    Raises:
        ValueError: it has no markers.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has to have the markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{section}\n\n{END}{after}"


def _sections(results: Sequence[Results], images: Sequence[str]) -> str:
    """Where and when, the tables, the charts."""
    parts = [_when(results), of_targets(results), *images]
    if table := of_peers(results):
        parts += [table]
    return "\n\n".join([*parts, of_cases(results)])


def _when(results: Sequence[Results]) -> str:
    machines = list(dict.fromkeys(_machine(one) for one in results))
    lines = ["| groups | rounds | seconds each | other processes took | on |", "|---|---|---|---|---|"]
    for one in results:
        shares = foreign_shares([one])
        share = f"{statistics.median(shares):.1%}" if shares else ""
        number = f", machine {machines.index(_machine(one)) + 1}" if len(machines) > 1 else ""
        lines.append(f"| {one.group} | {len(one.rounds)} | {one.seconds} | {share} | {one.machine['date']}{number} |")
    return "\n".join([*(f"Machine: {machine}.\n" for machine in machines), *lines])


def _machine(one: Results) -> str:
    return "; ".join(value for name, value in one.machine.items() if name not in ("date", "disk"))


def _pictures(results: Sequence[Results]) -> dict[str, tuple[str, str]]:
    """The charts for which there are figures: title and SVG, by name."""
    found = {}
    for name, (title, part, without) in _CHARTS.items():
        bars = [
            Bar(
                label=figure.target.what.removesuffix(" / bare").removeprefix(part).removesuffix(f", {part[:-7]}"),
                value=figure.median,
                target=figure.target.bound,
                kind="other" if figure.target.what.startswith("floor") else "bar",
            )
            for figure in figures([one for one in results if one.group is not Group.PEERS])
            if part in figure.target.what and not (without and without in figure.target.what)
        ]
        if bars:
            found[name] = (title, chart(title, bars))
    if bars := _of_peers(results):
        title = "Side by side: first requests a second, as a ratio to the bare application of the same kind"
        found["peers"] = (title, chart(title, bars))
    return found


def _of_peers(results: Sequence[Results]) -> list[Bar]:
    return [
        Bar(
            label=one.name,
            value=one.first,
            kind="bar" if one.ours else "wrong" if one.wrong or one.failed else "other",
            note="" if not (one.wrong or one.failed) else "failed a check",
        )
        for one in standings(results)
        if one.first is not None
    ]
