"""What must be reached, as ratios of two cases of the same round, or as counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from bench.cases import CASES, DOORS, LIBRARIES, Group
from bench.results import Count, Found


class Measure(StrEnum):
    """What of a case is judged."""

    RATE = "answers a second"
    P50 = "p50"
    FAILED = "failed"
    COUNT = "count"


@dataclass(frozen=True, slots=True)
class Target:
    """A figure, and the bound that its median must keep.

    Attributes:
        what: for people.
        case: the name of a case.
        base: of the case that it is divided by; empty: nothing.
        bound: a rate must be at least this, and anything else at most; None for information.
        measure: what of both is taken.
    """

    what: str
    case: str
    base: str
    bound: float | None
    measure: Measure = Measure.RATE

    @property
    def at_least(self) -> bool:
        """Whether more is better."""
        return self.measure is Measure.RATE

    def kept(self, figure: float) -> bool:
        """Whether that figure keeps the bound."""
        if self.bound is None:
            return True
        return figure >= self.bound if self.at_least else figure <= self.bound

    def figure(self, found: Mapping[str, Found]) -> float:
        """What a round found."""
        figure = self._of(found[self.case])
        return figure / self._of(found[self.base]) if self.base else figure

    def _of(self, found: Found) -> float:
        if isinstance(found, Count):
            return found.value
        match self.measure:
            case Measure.RATE:
                return found.per_second
            case Measure.P50:
                return found.p50_us
            case _:
                return found.failed


def _latency(name: str, case: str, bound: float | None) -> Target:
    return Target(f"p50 at c=1, {name}, first request / bare", case, "bare c=1", bound, Measure.P50)


def _count(what: str, case: str, bound: float | None) -> Target:
    return Target(what, case, "", bound, Measure.COUNT)


def _peer(case: str) -> Target:
    base = "bare fastapi, peers" if "FastAPI" in case else "bare, peers"
    return Target(f"{case} / {base.removesuffix(', peers')}", case, base, None)


_NAMES = {
    "memory": "memory store",
    "redis": "Redis",
    "postgres": "PostgreSQL",
    "sqlite": "SQLite",
    "mariadb": "MariaDB",
}
_SERVERS = ("redis", "postgres", "mariadb")

TARGETS = (
    Target("floor, first request / bare", "floor first", "bare", None),
    Target("floor, replay / bare", "floor replay", "bare", None),
    Target("memory store, first request / bare", "memory first", "bare", 0.50),
    Target("memory store, replay / bare", "memory replay", "bare", 0.50),
    Target("SQLite FULL, first request / bare", "sqlite first", "bare", 0.31),
    Target("SQLite FULL, replay / bare", "sqlite replay", "bare", 0.50),
    Target("Redis, first request / bare", "redis first", "bare, servers", 0.41),
    Target("Redis, replay / bare", "redis replay", "bare, servers", 0.52),
    Target("PostgreSQL, first request / bare", "postgres first", "bare, servers", 0.37),
    Target("PostgreSQL, replay / bare", "postgres replay", "bare, servers", None),
    Target("MariaDB, first request / bare", "mariadb first", "bare, servers", 0.29),
    Target("MariaDB, replay / bare", "mariadb replay", "bare, servers", None),
    Target("FastAPI, Redis, first request / bare", "fastapi redis first", "bare fastapi", 0.66),
    Target("FastAPI, PostgreSQL, first request / bare", "fastapi postgres first", "bare fastapi", 0.62),
    Target("FastAPI, SQLite FULL, first request / bare", "fastapi sqlite first", "bare fastapi", 0.58),
    _latency("memory store", "memory c=1", None),
    _latency("Redis", "redis c=1", 3.8),
    _latency("PostgreSQL", "postgres c=1", 8.5),
    _latency("SQLite FULL", "sqlite c=1", 7.5),
    *(
        Target(f"refused or failed at c=256, {name}", f"{key} c=256", "", 0, Measure.FAILED)
        for key, name in _NAMES.items()
    ),
    Target("SQLite, fsync +1 ms: group commit / one commit a transition", "slow disk, groups", "slow disk, singly", 15),
    Target("the same at c=256", "slow disk, groups, c=256", "slow disk, singly, c=256", None),
    Target(
        "PostgreSQL, fsync +1 ms: group commit / pool of 16", "slow postgres, groups", "slow postgres, pool of 16", 2.5
    ),
    Target("gateway over SQLite FULL, first request / pass-through", "gateway first", "pass-through", 0.55),
    Target("gateway over SQLite FULL, replay / pass-through", "gateway replay", "pass-through", 1.00),
    *(
        Target(f"{name}, {store}: door / bare", f"{name}, {store}", f"{name}, bare", None)
        for name in DOORS
        for store in ("SQLite", "Redis")
    ),
    *(
        Target(f"{library}, {mode}: client / bare", f"{library}, {mode}", f"{library}, bare", None)
        for library in LIBRARIES
        for mode in ("transport", "journal")
    ),
    *(_count(f"round trips of a first request, {_NAMES[key]}", f"{key} first, trips", 2) for key in _SERVERS),
    *(_count(f"round trips of a replay, {_NAMES[key]}", f"{key} replay, trips", 1) for key in _SERVERS),
    _count("bytes a record with a response of 500 bytes, Redis", "redis, bytes", 950),
    _count("bytes a record with a response of 500 bytes, PostgreSQL", "postgres, bytes", 600),
    _count("bytes a record with a response of 500 bytes, SQLite", "sqlite, bytes", 800),
    _count("bytes a record with a response of 500 bytes, MariaDB", "mariadb, bytes", None),
    Target(
        "PostgreSQL, many live records / few: p50 of a first request at c=1",
        "many records",
        "few records",
        1.3,
        Measure.P50,
    ),
    Target("the same at c=64", "many records, c=64", "few records, c=64", None, Measure.P50),
    *(_peer(case.name) for case in CASES if case.group is Group.PEERS and not case.name.startswith("bare")),
)
