"""One strategy from its start to its figures: quiet first, then under load and faults, then counted from outside."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from retrysafe.faults import Chance, ChaosProxy, Nothing, Plan
from retrysafe.lab.judged import Judged, judge
from retrysafe.lab.strategies.catalogue import STRATEGIES, Strategy
from retrysafe.lab.strategies.charges import count_postgres, count_sqlite
from retrysafe.lab.strategies.load import FAULTS, Client, Orders, calm
from retrysafe.lab.strategies.places import Postgres, Redis, size_of_postgres, size_of_redis
from retrysafe.lab.strategies.processes import Server, serving
from retrysafe.lab.strategies.shop import Where

_PROCESSES = 2
_WARM_ORDERS = 30
_TRIP_ORDERS = 100
_ORDERS_A_KILL = 2_500
_CALM_S = 10.0
_QUIET_S = 0.3
_LOOKS_MAX = 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """How much, and how.

    Attributes:
        orders: of each strategy, under faults.
        seed: of all chance.
        clients: how many are at work at once.
        timeout_s: how long a client waits for an answer.
        calm_orders: without faults and one after another, for the latency.
        chances: the faults.
    """

    orders: int
    seed: int
    clients: int = 64
    timeout_s: float = 0.5
    calm_orders: int = 1_000
    chances: Sequence[Chance] = FAULTS

    @property
    def kills(self) -> int:
        """How many processes are killed."""
        return max(1, self.orders // _ORDERS_A_KILL)


@dataclass(frozen=True, slots=True)
class Databases:
    """The servers that strategies use, as far as they are needed."""

    postgres: Postgres | None
    redis: Redis | None


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of a strategy.

    Attributes:
        strategy: which.
        judged: what was wrong.
        met: how many attempts met which kind of fault.
        kills: how many of its processes were killed.
        p50_us, p99_us: of one client without faults.
        bare_p50_us, bare_p99_us: the same of the shop without a guard, to which the same client went in turn.
        loaded_p50_us, loaded_p99_us: of first attempts that met no fault, under load.
        bytes_per_order: by which its databases grew with each of those, the shop's own table with them.
        trips_per_order: to its database servers, of one client without faults.
        per_second: orders, retries and faults with them.
    """

    strategy: Strategy
    judged: Judged
    met: Counter[str]
    kills: int
    p50_us: float
    p99_us: float
    bare_p50_us: float
    bare_p99_us: float
    loaded_p50_us: float
    loaded_p99_us: float
    bytes_per_order: float
    trips_per_order: float
    per_second: float


async def measure(
    strategy: Strategy, wanted: Wanted, databases: Databases, folder: Path, advance: Callable[[], None]
) -> Figures:
    """Run a strategy.

    Args:
        strategy: which.
        wanted: how much.
        databases: those that it uses.
        folder: for its files; it is empty.
        advance: called when an order is over.

    Raises:
        RetrysafeError: one of its processes did not start.
    """
    async with _where(strategy, databases, folder) as where:
        trips = await _trips(strategy, wanted, where)
        before_bytes = await _size_bytes(where)
        took_us, bare_took_us = await _calm(strategy, wanted, databases, where)
        grown_bytes = await _size_bytes(where) - before_bytes
        storm = await _storm(strategy, wanted, where, advance)
    return Figures(
        strategy,
        storm.judged,
        storm.met,
        storm.kills,
        percentile(took_us, 50),
        percentile(took_us, 99),
        percentile(bare_took_us, 50),
        percentile(bare_took_us, 99),
        percentile(storm.took_us, 50),
        percentile(storm.took_us, 99),
        grown_bytes / (_WARM_ORDERS + wanted.calm_orders),
        trips,
        wanted.orders / storm.seconds,
    )


@asynccontextmanager
async def _where(strategy: Strategy, databases: Databases, folder: Path) -> AsyncIterator[Where]:
    async with AsyncExitStack() as stack:
        urls = dict.fromkeys(("postgres", "redis"), "")
        for name in strategy.uses:
            server: Postgres | Redis | None = getattr(databases, name)
            assert server is not None, "what a strategy uses was opened before"
            urls[name] = await stack.enter_async_context(server.database())
        yield Where(urls["postgres"], urls["redis"], folder)


async def _calm(
    strategy: Strategy, wanted: Wanted, databases: Databases, where: Where
) -> tuple[list[float], list[float]]:
    """How long orders take one client, here and without a guard."""
    bare = STRATEGIES[strategy.baseline]
    place = where.folder / "bare"
    await asyncio.to_thread(place.mkdir)
    async with (
        _where(bare, databases, place) as bare_where,
        serving(strategy.name, where, 1) as (server,),
        serving(bare.name, bare_where, 1) as (bare_server,),
    ):
        await _ask([server, bare_server], wanted, "warm", _WARM_ORDERS)
        took_us, bare_took_us = await _ask([server, bare_server], wanted, "calm", wanted.calm_orders)
        return took_us, bare_took_us


async def _trips(strategy: Strategy, wanted: Wanted, where: Where) -> float:
    """Exchanges that a proxy sees between the server and its databases."""
    async with AsyncExitStack() as stack:
        urls = {name: getattr(where, name) for name in ("postgres", "redis")}
        proxies = []
        for name in strategy.uses:
            proxies.append(await stack.enter_async_context(ChaosProxy(urls[name], Nothing())))
            urls[name] = _at_port(urls[name], proxies[-1].port)
        through = Where(urls["postgres"], urls["redis"], where.folder)
        (server,) = await stack.enter_async_context(serving(strategy.name, through, 1))
        await _ask([server], wanted, "first", _WARM_ORDERS)
        before = sum(proxy.met.total() for proxy in proxies)
        await _ask([server], wanted, "trip", _TRIP_ORDERS)
        return (sum(proxy.met.total() for proxy in proxies) - before) / _TRIP_ORDERS


def _at_port(url: str, port: int) -> str:
    parts = urlsplit(url)
    login = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{login}{'@' if login else ''}127.0.0.1:{port}"))


async def _ask(servers: Sequence[Server], wanted: Wanted, name: str, count: int) -> list[list[float]]:
    orders = Orders(wanted.seed, name)
    return await calm([server.port for server in servers], [orders.order(number) for number in range(count)], _CALM_S)


async def _size_bytes(where: Where) -> int:
    size = sum(path.stat().st_size for path in where.folder.glob("*.db*"))
    size += await size_of_postgres(where.postgres) if where.postgres else 0
    return size + (await size_of_redis(where.redis) if where.redis else 0)


@dataclass(frozen=True, slots=True)
class _Storm:
    judged: Judged
    met: Counter[str]
    kills: int
    took_us: list[float]
    seconds: float


async def _storm(strategy: Strategy, wanted: Wanted, where: Where, advance: Callable[[], None]) -> _Storm:
    plan = Plan(wanted.seed, wanted.chances)
    orders = Orders(wanted.seed)
    clients = [Client(orders, plan, wanted.timeout_s) for _ in range(min(wanted.clients, wanted.orders))]
    numbers = iter(range(wanted.orders))
    async with serving(strategy.name, where, _PROCESSES) as servers:
        killer = _Killer(wanted, servers)
        began_s = time.monotonic()
        parts = await asyncio.gather(
            *(
                client.work(_turned([server.url for server in servers], place), numbers, killer.begins, advance)
                for place, client in enumerate(clients)
            )
        )
        seconds = time.monotonic() - began_s
        await killer.over()
        effects = await _effects(strategy, where)
        kills = sum(server.kills for server in servers)
    operations = [operation for part in parts for operation in part]
    judged = judge(operations, effects, refusals_are_losses=True)
    met = Counter(fault for operation in operations for fault in operation.faults)
    return _Storm(judged, met, kills, [took for client in clients for took in client.took_us], seconds)


def _turned(urls: list[str], place: int) -> list[str]:
    """The same, beginning somewhere else: clients do not all go to the first server first."""
    at = place % len(urls)
    return urls[at:] + urls[:at]


class _Killer:
    """Kills processes when certain orders begin, which the seed draws."""

    def __init__(self, wanted: Wanted, servers: Sequence[Server]) -> None:
        dice = random.Random(f"{wanted.seed}/kills")  # noqa: S311 - can be replayed, no secrets
        numbers = dice.sample(range(wanted.orders // 10, wanted.orders), min(wanted.kills, wanted.orders // 2))
        self._victims = {number: dice.choice(servers) for number in numbers}
        self._tasks: list[asyncio.Task[None]] = []

    def begins(self, number: int) -> None:
        """An order begins."""
        if (victim := self._victims.get(number)) is not None:
            self._tasks.append(asyncio.get_running_loop().create_task(victim.kill()))

    async def over(self) -> None:
        """Wait until everybody is back."""
        await asyncio.gather(*self._tasks)


async def _effects(strategy: Strategy, where: Where) -> dict[str, int]:
    """The rows of the shop's table, when two looks found the same: what was cut off may still be at work."""
    seen: dict[str, int] = {}
    for _ in range(_LOOKS_MAX):
        before = seen
        if strategy.charges:
            seen = await asyncio.to_thread(count_sqlite, where.folder / strategy.charges)
        else:
            seen = await count_postgres(where.postgres)
        if seen == before:
            break
        await asyncio.sleep(_QUIET_S)
    return seen


def percentile(took: Sequence[float], percent: int) -> float:
    """The value that so many percent do not exceed; 0 of nothing."""
    ordered = sorted(took)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else 0.0
