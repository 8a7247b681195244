"""Figures beside those of the shop that has no guard and its table in the same database: as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retrysafe.lab.judged import End
from retrysafe.lab.strategies.measure import Figures, Wanted

HEADS = ("strategy", "duplicates", "lost", "wrong", "unknown", "p50", "p99", "bytes", "trips", "orders/s")


@dataclass(frozen=True, slots=True)
class Row:
    """A strategy, against having none.

    Attributes:
        figures: of it.
        baseline: of the shop without a guard; itself for that one.
    """

    figures: Figures
    baseline: Figures

    @property
    def p50_ms(self) -> float:
        """Added at the median, of one client without faults."""
        return (self.figures.p50_us - self.figures.bare_p50_us) / 1_000

    @property
    def p99_ms(self) -> float:
        """Added at the 99th percentile."""
        return (self.figures.p99_us - self.figures.bare_p99_us) / 1_000

    @property
    def bytes(self) -> float:
        """Kept for an order, besides the order."""
        return self.figures.bytes_per_order - self.baseline.bytes_per_order

    @property
    def trips(self) -> float:
        """Added round trips to servers of databases."""
        return self.figures.trips_per_order - self.baseline.trips_per_order

    @property
    def is_baseline(self) -> bool:
        """Whether there is nothing that it is held against."""
        return self.figures is self.baseline

    def cells(self) -> list[str]:
        """One for each head."""
        judged = self.figures.judged
        counts = (judged.duplicates, judged.lost, judged.wrong, judged.ends[End.UNKNOWN])
        figures, sign = self.figures, "" if self.is_baseline else "+"
        p50_ms, p99_ms, bytes_, trips = (
            (figures.p50_us / 1_000, figures.p99_us / 1_000, figures.bytes_per_order, figures.trips_per_order)
            if self.is_baseline
            else (self.p50_ms, self.p99_ms, self.bytes, self.trips)
        )
        return [
            figures.strategy.title,
            *(_share(count, judged.operations) for count in counts),
            f"{p50_ms:{sign}.2f} ms",
            f"{p99_ms:{sign}.2f} ms",
            "in memory" if figures.strategy.name == "memory-cache" else f"{bytes_:{sign},.0f}",
            f"{trips:{sign}.1f}",
            f"{figures.per_second:,.0f}",
        ]


def _share(count: int, of: int) -> str:
    if not count:
        return "0"
    percent = 100 * count / of
    return f"{count:,} ({percent:.{1 if percent >= 0.1 else 3}f}%)"


def rows(found: Mapping[str, Figures]) -> list[Row]:
    """Each strategy with its baseline, in the order of the catalogue."""
    return [Row(figures, found[figures.strategy.baseline]) for figures in found.values()]


def text(table: Sequence[Row]) -> list[str]:
    """Lines for a terminal."""
    lines = [list(HEADS), *(row.cells() for row in table)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADS))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def findings(found: Mapping[str, Figures]) -> list[str]:
    """What is wrong, one sentence each; nothing if the run shows what it should."""
    wrong = []
    for figures in found.values():
        judged, name = figures.judged, figures.strategy.title
        if figures.strategy.is_ours and not judged.is_clean:
            examples = "; ".join(f"{what}: {', '.join(names)}" for what, names in judged.examples.items() if names)
            wrong.append(
                f"{name}: {judged.duplicates} duplicates, {judged.lost} lost, {judged.wrong} wrong answers: "
                f"a defect of retrysafe ({examples})"
            )
        if figures.strategy.name == figures.strategy.baseline and not judged.duplicates:
            wrong.append(f"{name} has no duplicate, so that this run shows nothing: take more orders, or more faults")
    return wrong


def document(found: Mapping[str, Figures], wanted: Wanted, versions: Sequence[str]) -> dict[str, Any]:
    """The same as JSON."""
    return {
        "seed": wanted.seed,
        "orders": wanted.orders,
        "clients": wanted.clients,
        "timeout_ms": round(wanted.timeout_s * 1_000),
        "faults": [str(chance) for chance in wanted.chances],
        "versions": list(versions),
        "strategies": [_member(row) for row in rows(found)],
    }


def _member(row: Row) -> dict[str, Any]:
    figures, judged = row.figures, row.figures.judged
    return {
        "name": figures.strategy.name,
        "title": figures.strategy.title,
        "orders": judged.operations,
        "requests": judged.attempts,
        "orders_with_faults": judged.faulty,
        "met": dict(figures.met),
        "kills": figures.kills,
        "clients": {str(end): count for end, count in judged.ends.items()},
        "duplicates": judged.duplicates,
        "lost": judged.lost,
        "wrong": judged.wrong,
        "examples": judged.examples,
        "p50_ms": figures.p50_us / 1_000,
        "p99_ms": figures.p99_us / 1_000,
        "added_p50_ms": row.p50_ms,
        "added_p99_ms": row.p99_ms,
        "loaded_p50_ms": figures.loaded_p50_us / 1_000,
        "loaded_p99_ms": figures.loaded_p99_us / 1_000,
        "bytes_per_order": figures.bytes_per_order,
        "added_bytes_per_order": row.bytes,
        "trips_per_order": figures.trips_per_order,
        "added_trips_per_order": row.trips,
        "orders_per_second": figures.per_second,
    }
