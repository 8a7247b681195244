"""What is measured, and what the ratios of it must reach."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

RING = 1_000  # keys that replays go round: many more than connections, so that no two wait for one key


class Door(StrEnum):
    """What stands in front of the application; the value is what uvicorn serves."""

    BARE = "bench.bare:bare"
    MEMORY = "bench.protected:memory"
    SQLITE = "bench.protected:sqlite"
    ONE_COMMIT = "bench.protected:sqlite_one_commit"
    PASS_THROUGH = "bench.passthrough:passthrough"  # noqa: S105  (no password)
    GATEWAY = "retrysafe serve"

    @property
    def protects(self) -> bool:
        """Whether requests through it are safe to retry."""
        return self not in (Door.BARE, Door.PASS_THROUGH)

    @property
    def apart(self) -> bool:
        """Whether the application runs in a process of its own behind it."""
        return self in (Door.PASS_THROUGH, Door.GATEWAY)


class Group(StrEnum):
    """Cases that can be run without the others."""

    MIDDLEWARE = "middleware"
    LATENCY = "latency"
    COMMIT = "commit"
    GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that is measured in each round.

    Attributes:
        name: unique.
        group: what it is measured with.
        door: what stands in front of the application.
        replays: whether requests go round a ring of recorded keys; else each has a new key.
        concurrency: connections, each with one request at a time.
        slow_fsync: whether each fsync of the server takes 1 ms more.
        seconds_min: how long it must be measured at least; many times what one answer takes.
    """

    name: str
    group: Group
    door: Door
    replays: bool = False
    concurrency: int = 64
    slow_fsync: bool = False
    seconds_min: int = 1


@dataclass(frozen=True, slots=True)
class Target:
    """A ratio of two cases of the same round, and the bound that its median must keep.

    Attributes:
        what: for people.
        case, base: names of cases; the ratio is case over base.
        latency: the ratio of their p50, which must be at most the bound; else of their rates, at least.
        bound: None for information.
    """

    what: str
    case: str
    base: str
    bound: float | None
    latency: bool = False

    def kept(self, ratio: float) -> bool:
        """Whether that ratio keeps the bound."""
        if self.bound is None:
            return True
        return ratio <= self.bound if self.latency else ratio >= self.bound


CASES = (
    Case("bare", Group.MIDDLEWARE, Door.BARE),
    Case("memory first", Group.MIDDLEWARE, Door.MEMORY),
    Case("memory replay", Group.MIDDLEWARE, Door.MEMORY, replays=True),
    Case("sqlite first", Group.MIDDLEWARE, Door.SQLITE),
    Case("sqlite replay", Group.MIDDLEWARE, Door.SQLITE, replays=True),
    Case("bare c=1", Group.LATENCY, Door.BARE, concurrency=1),
    Case("memory c=1", Group.LATENCY, Door.MEMORY, concurrency=1),
    Case("sqlite c=1", Group.LATENCY, Door.SQLITE, concurrency=1),
    Case("slow disk, groups", Group.COMMIT, Door.SQLITE, slow_fsync=True),
    Case("slow disk, singly", Group.COMMIT, Door.ONE_COMMIT, slow_fsync=True),
    Case("slow disk, groups, c=256", Group.COMMIT, Door.SQLITE, concurrency=256, slow_fsync=True),
    Case("slow disk, singly, c=256", Group.COMMIT, Door.ONE_COMMIT, concurrency=256, slow_fsync=True, seconds_min=6),
    Case("pass-through", Group.GATEWAY, Door.PASS_THROUGH),
    Case("gateway first", Group.GATEWAY, Door.GATEWAY),
    Case("gateway replay", Group.GATEWAY, Door.GATEWAY, replays=True),
)

TARGETS = (
    Target("memory store, first request / bare", "memory first", "bare", 0.50),
    Target("memory store, replay / bare", "memory replay", "bare", 0.50),
    Target("SQLite FULL, first request / bare", "sqlite first", "bare", 0.31),
    Target("SQLite FULL, replay / bare", "sqlite replay", "bare", 0.50),
    Target("p50 at c=1, memory store, first request / bare", "memory c=1", "bare c=1", None, latency=True),
    Target("p50 at c=1, SQLite FULL, first request / bare", "sqlite c=1", "bare c=1", 7.5, latency=True),
    Target("fsync +1 ms: group commit / one commit a transition", "slow disk, groups", "slow disk, singly", 15.0),
    Target("the same at c=256", "slow disk, groups, c=256", "slow disk, singly, c=256", None),
    Target("gateway over SQLite FULL, first request / pass-through", "gateway first", "pass-through", 0.55),
    Target("gateway over SQLite FULL, replay / pass-through", "gateway replay", "pass-through", 1.00),
)

# A first request is two transitions, so with an fsync of at least 1 ms each, one by one, there are
# fewer than this many in a second. More would mean that the store does not wait for the disk.
FIRST_PER_SECOND_SINGLY_MAX = 500
