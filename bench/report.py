"""The table that people read, and the same for machines."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.cases import TARGETS, Target
from bench.measure import Sample

Round = Mapping[str, Sample]


@dataclass(frozen=True, slots=True)
class Ratio:
    """One target, and the ratio that each round found."""

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


def ratios(rounds: Sequence[Round]) -> list[Ratio]:
    """The targets that can be judged from the cases that were run."""
    return [
        Ratio(target, tuple(_ratio(target, found) for found in rounds))
        for target in TARGETS
        if {target.case, target.base} <= set(rounds[0])
    ]


def _ratio(target: Target, found: Round) -> float:
    case, base = found[target.case].load, found[target.base].load
    return case.p50_us / base.p50_us if target.latency else case.per_second / base.per_second


def tables(rounds: Sequence[Round]) -> str:
    """Two Markdown tables: the ratios with their targets, and what they were computed from."""
    lines = ["| ratio, median of the rounds [least-most] | found | target | |", "|---|---|---|---|"]
    lines += [_ratio_line(ratio) for ratio in ratios(rounds)]
    lines += ["", "| measured, medians [least-most] | answers/s | p50 us | p99 us | server cpu us | server MiB |"]
    lines += ["|---|---|---|---|---|---|"]
    lines += [_case_line(name, [found[name] for found in rounds]) for name in rounds[0]]
    return "\n".join(lines)


def foreign_shares(rounds: Sequence[Round]) -> list[float]:
    """How much of the machine other processes took, measurement by measurement: 1 is all of it."""
    return [sample.foreign for found in rounds for sample in found.values()]


def as_json(machine: Mapping[str, str], seconds: int, rounds: Sequence[Round]) -> str:
    """Everything that was measured."""
    document: dict[str, Any] = {
        "machine": machine,
        "seconds": seconds,
        "rounds": [{name: dataclasses.asdict(sample) for name, sample in found.items()} for found in rounds],
        "ratios": [
            {**dataclasses.asdict(ratio.target), "found": ratio.found, "median": ratio.median, "kept": ratio.kept}
            for ratio in ratios(rounds)
        ],
    }
    return json.dumps(document, indent=2)


def _ratio_line(ratio: Ratio) -> str:
    target, places = ratio.target, 2 if ratio.median < 2 else 1
    spread = f"{ratio.median:.{places}f} [{min(ratio.found):.{places}f}-{max(ratio.found):.{places}f}]"
    if target.bound is None:
        return f"| {target.what} | {spread} | | for information |"
    bound = f"{'at most' if target.latency else 'at least'} {target.bound:g}"
    return f"| {target.what} | {spread} | {bound} | {'kept' if ratio.kept else 'MISSED'} |"


def _case_line(name: str, samples: Sequence[Sample]) -> str:
    rates = [sample.load.per_second for sample in samples]
    figures = [
        f"{statistics.median(rates):,.0f} [{min(rates):,.0f}-{max(rates):,.0f}]",
        f"{statistics.median(sample.load.p50_us for sample in samples):,.0f}",
        f"{statistics.median(sample.load.p99_us for sample in samples):,.0f}",
        f"{statistics.median(sample.cpu_us for sample in samples):.1f}",
        f"{statistics.median(sample.resident_mib for sample in samples):.0f}",
    ]
    return f"| {name} | {' | '.join(figures)} |"
