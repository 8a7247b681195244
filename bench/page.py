"""The results in docs/benchmarks.md, between two markers, and the charts beside it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.cases import Group
from bench.report import (
    Figure,
    figures,
    foreign_shares,
    of_cases,
    of_doors,
    of_peers,
    of_targets,
    of_transports,
    standings,
)
from bench.results import Results
from retrysafe.lab.charts import Bar, chart

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


@dataclass(frozen=True, slots=True)
class Picture:
    """A chart of the targets that have this in their names.

    Attributes:
        title: of it.
        part: what their names have in them, and the labels have not.
        without: what their names have not.
    """

    title: str
    part: str
    without: str = "peers"


_PICTURES = {
    "first": Picture("First requests a second, as a ratio to the bare application", ", first request / bare", "p50"),
    "replay": Picture("Replays a second, as a ratio to first requests of the bare application", ", replay / bare"),
    "latency": Picture("p50 at one connection, as a multiple of the bare application's", "p50 at c=1, "),
    "doors-sqlite": Picture(
        "Each door over SQLite, first requests, as a ratio to its framework alone", ", SQLite: door / bare"
    ),
    "doors-redis": Picture(
        "Each door over Redis, first requests, as a ratio to its framework alone", ", Redis: door / bare"
    ),
    "transports": Picture("Each transport, calls a second, as a ratio to its client alone", ": client / bare"),
    "commit": Picture("Group commit with an fsync slowed by 1 ms, as a multiple of without", ": group commit / "),
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
    parts += [text for table in (of_doors, of_transports, of_peers) if (text := table(results))]
    return "\n\n".join([*parts, of_cases(results)])


def _when(results: Sequence[Results]) -> str:
    machines = list(dict.fromkeys(_machine(one) for one in results))
    lines = [f"Machine: {machine}." for machine in machines]
    servers = dict.fromkeys(name for one in results for name in one.machine["servers"].split(", ") if name)
    lines += [f"Stores' servers: {', '.join(servers)}."] if servers else []
    lines += [
        "",
        "| group | rounds, seconds each | other processes took | measured on | disk |",
        "|---|---|---|---|---|",
    ]
    for one in results:
        shares = foreign_shares([one])
        share = f"{statistics.median(shares):.1%}" if shares else ""
        date, disk = one.machine["date"], one.machine["disk"]
        number = f", machine {machines.index(_machine(one)) + 1}" if len(machines) > 1 else ""
        filled = f", {one.machine['filled']}" if one.machine["filled"] else ""
        lines.append(f"| {one.group}{filled} | {len(one.rounds)}, {one.seconds} | {share} | {date}{number} | {disk} |")
    return "\n".join(lines)


def _machine(one: Results) -> str:
    return "; ".join(value for name, value in one.machine.items() if name not in {"date", "disk", "servers", "filled"})


def _pictures(results: Sequence[Results]) -> dict[str, tuple[str, str]]:
    """The charts for which there are figures: title and SVG, by name."""
    found = {}
    own = figures([one for one in results if one.group is not Group.PEERS])
    for name, picture in _PICTURES.items():
        bars = [
            _bar(figure, picture.part)
            for figure in own
            if picture.part in figure.target.what and picture.without not in figure.target.what
        ]
        if bars:
            found[name] = (picture.title, chart(picture.title, bars))
    if bars := _of_peers(results):
        title = "Side by side: first requests a second, as a ratio to the bare application of the same kind"
        found["peers"] = (title, chart(title, bars))
    return found


def _bar(figure: Figure, part: str) -> Bar:
    label = figure.target.what.replace(part, ", over " if part == _PICTURES["commit"].part else "")
    label = label.removesuffix(", first request / bare").replace(", fsync +1 ms", "")
    kind = "other" if label.startswith("floor") else "bar"
    return Bar(label, figure.median, figure.target.bound, kind)


def _of_peers(results: Sequence[Results]) -> list[Bar]:
    return [
        Bar(
            label=one.name,
            value=one.first,
            kind="bar" if one.ours else "wrong" if one.wrong or one.failed else "other",
            note="failed a check" if one.wrong else f"{one.failed:.0%} of requests failed" if one.failed else "",
        )
        for one in standings(results)
        if one.first is not None
    ]
