"""What is measured."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from bench.engines import Engine
from bench.environments import (
    ASGI_IDEMPOTENCY_HEADER,
    IDEMKIT,
    IDEMPOTENCY_KIT,
    MOBIUS,
    POWERTOOLS,
    PYIDEMPOTENT,
    Peer,
)

RING = 1_000  # keys that replays go round: many more than connections, so that no two wait for one key


@dataclass(frozen=True, slots=True)
class Door:
    """What stands in front of the application.

    Attributes:
        factory: what uvicorn serves; empty for the gateway, which serves itself.
        engine: where its records are.
        protects: whether requests through it are safe to retry.
        apart: whether the application runs in a process of its own behind it.
        peer: the package, if it is not ours.
        blocking: whether it is served by gunicorn with threads; else by uvicorn.
    """

    factory: str
    engine: Engine = Engine.NONE
    protects: bool = True
    apart: bool = False
    peer: Peer | None = None
    blocking: bool = False


BARE = Door("bench.bare:bare", protects=False)
BARE_FASTAPI = Door("bench.framework:fastapi", protects=False)
FLOOR = Door("bench.floor:floor")
PASS_THROUGH = Door("bench.passthrough:passthrough", protects=False, apart=True)
GATEWAY = Door("", Engine.SQLITE, apart=True)
GATEWAY_REDIS = Door("", Engine.REDIS, apart=True)
SINGLY = Door("bench.protected:singly", Engine.SQLITE)
POOL = Door("bench.protected:pool", Engine.POSTGRES)
MEMORY, SQLITE, REDIS, POSTGRES, MARIADB = (
    Door("bench.protected:raw", engine)
    for engine in (Engine.MEMORY, Engine.SQLITE, Engine.REDIS, Engine.POSTGRES, Engine.MARIADB)
)
FASTAPI_SQLITE, FASTAPI_REDIS, FASTAPI_POSTGRES = (
    Door("bench.protected:framework", engine) for engine in (Engine.SQLITE, Engine.REDIS, Engine.POSTGRES)
)
_STORES = {"SQLite": Engine.SQLITE, "Redis": Engine.REDIS}


def _doors(module: str, *, blocking: bool = False) -> dict[str, Door]:
    """A framework alone, and behind its door over each store."""
    stores = {name: Door(f"{module}:protected", engine, blocking=blocking) for name, engine in _STORES.items()}
    return {"bare": Door(f"{module}:bare", protects=False, blocking=blocking), **stores}


DOORS = {
    "ASGI": {"bare": BARE, "SQLite": SQLITE, "Redis": REDIS},
    "Starlette": _doors("bench.doors.starlette"),
    "FastAPI": _doors("bench.doors.fastapi"),
    "Litestar": _doors("bench.doors.litestar"),
    "WSGI": _doors("bench.doors.wsgi", blocking=True),
    "Flask": _doors("bench.doors.flask", blocking=True),
    "Django": _doors("bench.doors.django", blocking=True),
    "Django, async": _doors("bench.doors.django_async"),
    "gateway": {"bare": PASS_THROUGH, "SQLite": GATEWAY, "Redis": GATEWAY_REDIS},
}
SEEN = Door("bench.seen:seen", protects=False)
PEERS = {
    "idemkit, raw": Door("bench.peers.idemkit:raw", Engine.REDIS, peer=IDEMKIT),
    "asgi-idempotency-header, raw": Door(
        "bench.peers.asgi_idempotency_header:raw", Engine.REDIS, peer=ASGI_IDEMPOTENCY_HEADER
    ),
    "mobius, FastAPI": Door("bench.peers.mobius:framework", Engine.REDIS, peer=MOBIUS),
    "idempotency-kit, FastAPI": Door("bench.peers.idempotency_kit:framework", Engine.REDIS, peer=IDEMPOTENCY_KIT),
    "pyidempotent, FastAPI": Door("bench.peers.pyidempotent:framework", Engine.REDIS, peer=PYIDEMPOTENT),
    "powertools, FastAPI": Door("bench.peers.powertools:framework", Engine.REDIS, peer=POWERTOOLS),
    "idemkit on PostgreSQL, raw": Door("bench.peers.idemkit:raw", Engine.POSTGRES, peer=IDEMKIT),
}


class Group(StrEnum):
    """Cases that can be run without the others."""

    MIDDLEWARE = "middleware"
    SERVERS = "servers"
    FRAMEWORK = "framework"
    LATENCY = "latency"
    CROWD = "crowd"
    COMMIT = "commit"
    GATEWAY = "gateway"
    DOORS = "doors"
    TRANSPORTS = "transports"
    COUNTS = "counts"
    GROWTH = "growth"
    PEERS = "peers"


class Work(StrEnum):
    """How a case is measured."""

    LOAD = "load"
    CALLS = "calls"
    TRIPS = "round trips a request"
    SIZE = "bytes a record"

    @property
    def is_counted(self) -> bool:
        """Whether it is counted, once, and not timed in each round."""
        return self in {Work.TRIPS, Work.SIZE}


LIBRARIES = ("httpx2", "httpx2-async", "httpx", "httpx-async", "requests", "aiohttp", "urllib3")
MODES = ("bare", "transport", "journal")


@dataclass(frozen=True, slots=True)
class Caller:
    """What makes calls, one after the other.

    Attributes:
        library: one of `LIBRARIES`.
        mode: one of `MODES`: the library alone, with our transport, and with the journal too.
    """

    library: str
    mode: str


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that is measured in each round.

    Attributes:
        name: unique.
        group: what it is measured with.
        door: what stands in front of the application.
        work: how it is measured.
        replays: whether requests go round a ring of recorded keys; else each has a new key.
        concurrency: connections, each with one request at a time.
        slow_fsync: whether each fsync of who writes takes 1 ms more.
        seconds_min: how long it must be measured at least; many times what one answer takes.
        may_fail: failed answers are counted, and do not spoil it.
        live: records that are there before: one of the sizes in `bench.growth`, else none.
        caller: who makes the calls, where a client is measured.
    """

    name: str
    group: Group
    door: Door
    work: Work = Work.LOAD
    replays: bool = False
    concurrency: int = 64
    slow_fsync: bool = False
    seconds_min: int = 1
    may_fail: bool = False
    live: str = ""
    caller: Caller | None = None


def _pair(group: Group, name: str, door: Door, **more: bool) -> tuple[Case, Case]:
    """First requests, and replays."""
    return (
        Case(f"{name} first", group, door, may_fail=more.get("may_fail", False)),
        Case(f"{name} replay", group, door, replays=True, may_fail=more.get("may_fail", False)),
    )


def _crowd(name: str, door: Door) -> Case:
    return Case(f"{name} c=256", Group.CROWD, door, concurrency=256, may_fail=True)


def _trips(name: str, door: Door) -> tuple[Case, Case]:
    return (
        Case(f"{name} first, trips", Group.COUNTS, door, Work.TRIPS),
        Case(f"{name} replay, trips", Group.COUNTS, door, Work.TRIPS, replays=True),
    )


def _door(name: str) -> tuple[Case, ...]:
    """A framework alone, and first requests behind its door over each store."""
    return tuple(Case(f"{name}, {behind}", Group.DOORS, door) for behind, door in DOORS[name].items())


def _transport(library: str) -> tuple[Case, ...]:
    return tuple(
        Case(f"{library}, {mode}", Group.TRANSPORTS, SEEN, Work.CALLS, concurrency=1, caller=Caller(library, mode))
        for mode in MODES
    )


CASES = (
    Case("bare", Group.MIDDLEWARE, BARE),
    *_pair(Group.MIDDLEWARE, "floor", FLOOR),
    *_pair(Group.MIDDLEWARE, "memory", MEMORY),
    *_pair(Group.MIDDLEWARE, "sqlite", SQLITE),
    Case("bare, servers", Group.SERVERS, BARE),
    *_pair(Group.SERVERS, "redis", REDIS),
    *_pair(Group.SERVERS, "postgres", POSTGRES),
    *_pair(Group.SERVERS, "mariadb", MARIADB),
    Case("bare fastapi", Group.FRAMEWORK, BARE_FASTAPI),
    Case("fastapi redis first", Group.FRAMEWORK, FASTAPI_REDIS),
    Case("fastapi postgres first", Group.FRAMEWORK, FASTAPI_POSTGRES),
    Case("fastapi sqlite first", Group.FRAMEWORK, FASTAPI_SQLITE),
    Case("bare c=1", Group.LATENCY, BARE, concurrency=1),
    Case("memory c=1", Group.LATENCY, MEMORY, concurrency=1),
    Case("redis c=1", Group.LATENCY, REDIS, concurrency=1),
    Case("postgres c=1", Group.LATENCY, POSTGRES, concurrency=1),
    Case("sqlite c=1", Group.LATENCY, SQLITE, concurrency=1),
    _crowd("memory", MEMORY),
    _crowd("redis", REDIS),
    _crowd("postgres", POSTGRES),
    _crowd("sqlite", SQLITE),
    _crowd("mariadb", MARIADB),
    Case("slow disk, groups", Group.COMMIT, SQLITE, slow_fsync=True),
    Case("slow disk, singly", Group.COMMIT, SINGLY, slow_fsync=True),
    Case("slow disk, groups, c=256", Group.COMMIT, SQLITE, concurrency=256, slow_fsync=True),
    Case("slow disk, singly, c=256", Group.COMMIT, SINGLY, concurrency=256, slow_fsync=True, seconds_min=6),
    Case("slow postgres, groups", Group.COMMIT, POSTGRES, slow_fsync=True),
    Case("slow postgres, pool of 16", Group.COMMIT, POOL, slow_fsync=True),
    Case("pass-through", Group.GATEWAY, PASS_THROUGH),
    *_pair(Group.GATEWAY, "gateway", GATEWAY),
    *(case for name in DOORS for case in _door(name)),
    *(case for library in LIBRARIES for case in _transport(library)),
    *_trips("redis", REDIS),
    *_trips("postgres", POSTGRES),
    *_trips("mariadb", MARIADB),
    Case("redis, bytes", Group.COUNTS, REDIS, Work.SIZE),
    Case("postgres, bytes", Group.COUNTS, POSTGRES, Work.SIZE),
    Case("sqlite, bytes", Group.COUNTS, SQLITE, Work.SIZE),
    Case("mariadb, bytes", Group.COUNTS, MARIADB, Work.SIZE),
    Case("few records", Group.GROWTH, POSTGRES, concurrency=1, live="few"),
    Case("many records", Group.GROWTH, POSTGRES, concurrency=1, live="many"),
    Case("few records, c=64", Group.GROWTH, POSTGRES, live="few"),
    Case("many records, c=64", Group.GROWTH, POSTGRES, live="many"),
    Case("bare, peers", Group.PEERS, BARE),
    Case("bare fastapi, peers", Group.PEERS, BARE_FASTAPI),
    *_pair(Group.PEERS, "retrysafe, raw", REDIS),
    *_pair(Group.PEERS, "retrysafe, FastAPI", FASTAPI_REDIS),
    *_pair(Group.PEERS, "retrysafe on PostgreSQL, raw", POSTGRES),
    *(case for name, door in PEERS.items() for case in _pair(Group.PEERS, name, door, may_fail=True)),
)
