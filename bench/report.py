"""The tables that people read, from the results of the groups that there are."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.cases import CASES, DOORS, LIBRARIES, PEERS, Group
from bench.results import Results, Sample
from bench.targets import TARGETS, Measure, Target

_GROUP_OF = {case.name: case.group for case in CASES}
_IN_TABLES_OF_THEIR_OWN = {Group.PEERS, Group.DOORS, Group.TRANSPORTS}


@dataclass(frozen=True, slots=True)
class Figure:
    """One target, and the figure that each round found."""

    target: Target
    found: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of the rounds; this is what is judged."""
        return statistics.median(self.found)

    @property
    def kept(self) -> bool:
        """Whether the target is reached."""
        return self.target.kept(self.median)

    @property
    def spread(self) -> str:
        """The median, with the least and the most if they differ."""
        places = 0 if self.median >= 100 or self.target.measure is Measure.FAILED else 2 if self.median < 10 else 1
        middle, least, most = (f"{one:,.{places}f}" for one in (self.median, min(self.found), max(self.found)))
        return middle if least == most else f"{middle} [{least}-{most}]"


def figures(results: Sequence[Results]) -> list[Figure]:
    """Of the targets whose cases were measured."""
    rounds = {one.group: one.rounds for one in results}
    found = []
    for target in TARGETS:
        group = rounds.get(_GROUP_OF[target.case], ())
        known = [one for one in group if target.case in one and (not target.base or target.base in one)]
        if known:
            found.append(Figure(target, tuple(target.figure(one) for one in known)))
    return found


def foreign_shares(results: Sequence[Results]) -> list[float]:
    """How much of the machine other processes took, measurement by measurement: 1 is all of it."""
    samples = (sample for one in results for found in one.rounds for sample in found.values())
    return [sample.foreign for sample in samples if isinstance(sample, Sample) and sample.requests]


def of_targets(results: Sequence[Results]) -> str:
    """A Markdown table of figures and targets, but of those in tables of their own."""
    lines = ["| median of the rounds [least-most] | found | target | |", "|---|---|---|---|"]
    of_table = [one for one in figures(results) if _GROUP_OF[one.target.case] not in _IN_TABLES_OF_THEIR_OWN]
    lines += [_figure_line(figure) for figure in of_table]
    return "\n".join(lines) if of_table else ""


def _figure_line(figure: Figure) -> str:
    target = figure.target
    if target.bound is None:
        return f"| {target.what} | {figure.spread} | | for information |"
    bound = f"{'at least' if target.at_least else 'at most'} {target.bound:g}"
    return f"| {target.what} | {figure.spread} | {bound} | {'kept' if figure.kept else '**missed**'} |"


def of_doors(results: Sequence[Results]) -> str:
    """A Markdown table of each door over each store."""
    head = "| door, first requests at 64 connections | alone, answers/s | over SQLite / alone | over Redis / alone |"
    return _beside(results, Group.DOORS, head, tuple(DOORS), ("SQLite", "Redis"))


def of_transports(results: Sequence[Results]) -> str:
    """A Markdown table of each HTTP library with its transport."""
    head = (
        "| client, one call after the other | alone, calls/s | with its transport / alone | and the journal / alone |"
    )
    return _beside(results, Group.TRANSPORTS, head, LIBRARIES, ("transport", "journal"))


def _beside(results: Sequence[Results], group: Group, head: str, names: Sequence[str], variants: Sequence[str]) -> str:
    """A line for each name: its rate alone, and the ratios of its variants; empty if nothing was measured."""
    measured = next((one for one in results if one.group is group), None)
    if measured is None:
        return ""
    found = {figure.target.case: figure.spread for figure in figures([measured])}
    lines = [head, "|---|---|---|---|"]
    for name in names:
        alone = [sample for one in measured.rounds if isinstance(sample := one.get(f"{name}, bare"), Sample)]
        rate = f"{statistics.median(sample.per_second for sample in alone):,.0f}" if alone else ""
        lines.append(f"| {name} | {rate} | {' | '.join(found.get(f'{name}, {it}', '') for it in variants)} |")
    return "\n".join(lines)


def of_cases(results: Sequence[Results]) -> str:
    """A Markdown table of what was timed; processor and memory are those of the server in front, or of the client."""
    lines = ["| measured, medians [least-most] | answers/s | p50 us | p99 us | CPU us | MiB |"]
    lines += ["|---|---|---|---|---|---|"]
    for case in CASES:
        rounds = next((one.rounds for one in results if one.group is case.group), ())
        samples = [found for one in rounds if isinstance(found := one.get(case.name), Sample) and found.requests]
        if not case.work.is_counted and samples:
            lines.append(_case_line(case.name, samples))
    return "\n".join(lines)


def _case_line(name: str, samples: Sequence[Sample]) -> str:
    rates = [sample.per_second for sample in samples]
    cells = [
        f"{statistics.median(rates):,.0f} [{min(rates):,.0f}-{max(rates):,.0f}]",
        f"{statistics.median(sample.p50_us for sample in samples):,.0f}",
        f"{statistics.median(sample.p99_us for sample in samples):,.0f}",
        f"{statistics.median(sample.cpu_us for sample in samples):.1f}",
        f"{statistics.median(sample.resident_mib for sample in samples):.0f}",
    ]
    return f"| {name} | {' | '.join(cells)} |"


@dataclass(frozen=True, slots=True)
class Standing:
    """A peer, or ourselves beside it.

    Attributes:
        name: as its cases are called.
        first, replay: rates over the bare application's of the same kind; None if not measured.
        failed: share of requests at 64 connections that failed, at worst.
        wrong: what it did not pass, or why it is not there.
    """

    name: str
    first: float | None
    replay: float | None
    failed: float
    wrong: tuple[str, ...]

    @property
    def ours(self) -> bool:
        """Whether it is this project."""
        return self.name not in PEERS


def standings(results: Sequence[Results]) -> list[Standing]:
    """Everyone in the group of peers, in the order of the cases."""
    of_peers = next((one for one in results if one.group is Group.PEERS), None)
    if of_peers is None:
        return []
    ratios = {figure.target.case: figure.median for figure in figures([of_peers])}
    names = [case.name.removesuffix(" first") for case in CASES if case.group is Group.PEERS and "first" in case.name]
    return [_standing(name, of_peers, ratios) for name in names]


def _standing(name: str, of_peers: Results, ratios: dict[str, float]) -> Standing:
    peer = PEERS[name].peer if name in PEERS else None
    if peer and peer.name in of_peers.absent:
        return Standing(name, None, None, 0.0, (f"does not install here: {of_peers.absent[peer.name]}",))
    samples = [
        found
        for one in of_peers.rounds
        for case in (f"{name} first", f"{name} replay")
        if isinstance(found := one[case], Sample)
    ]
    return Standing(
        name=name,
        first=ratios[f"{name} first"],
        replay=ratios[f"{name} replay"],
        failed=max(sample.failed / max(1, sample.requests) for sample in samples),
        wrong=tuple(dict.fromkeys(wrong for sample in samples for wrong in sample.wrong)),
    )


def of_peers(results: Sequence[Results]) -> str:
    """A Markdown table of everyone, with the checks that they failed."""
    lines = [
        "| side by side | first / bare | replay / bare | requests failed, at worst | checks failed in the same run |"
    ]
    lines += ["|---|---|---|---|---|"]
    for one in standings(results):
        first, replay = (f"{ratio:.2f}" if ratio is not None else "" for ratio in (one.first, one.replay))
        failed = f"{one.failed:.1%}" if one.failed else "0"
        lines.append(f"| {one.name} | {first} | {replay} | {failed} | {'; '.join(one.wrong) or 'none'} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def text(results: Sequence[Results]) -> str:
    """All tables."""
    tables = (of_targets, of_doors, of_transports, of_peers, of_cases)
    return "\n\n".join(text for table in tables if (text := table(results)))
