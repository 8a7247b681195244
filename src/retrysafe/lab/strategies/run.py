"""Strategies one after the other, over databases that are opened once."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from retrysafe.errors import ConfigurationError
from retrysafe.lab.strategies import places
from retrysafe.lab.strategies.catalogue import STRATEGIES, Strategy
from retrysafe.lab.strategies.measure import Databases, Figures, Wanted, measure

# Called with a strategy before it is measured; gives what is called whenever one of its orders is over.
Begins = Callable[[Strategy], Callable[[], None]]


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured.

    Attributes:
        figures: of each strategy, by its name.
        versions: of the databases.
    """

    figures: dict[str, Figures]
    versions: tuple[str, ...]


def choose(names: Sequence[str]) -> list[Strategy]:
    """The strategies of these names, and those that they are held against; all without a name.

    Raises:
        ConfigurationError: there is none of a name.
    """
    unknown = [name for name in names if name not in STRATEGIES]
    if unknown:
        known = ", ".join(STRATEGIES)
        raise ConfigurationError([f"--only: there is no strategy {name!r}; there are {known}" for name in unknown])
    wanted = set(names or STRATEGIES)
    wanted |= {STRATEGIES[name].baseline for name in wanted}
    return [strategy for strategy in STRATEGIES.values() if strategy.name in wanted]


def run(
    chosen: Sequence[Strategy], wanted: Wanted, begins: Begins, *, postgres: str | None = None, redis: str | None = None
) -> Found:
    """Measure strategies, on the fastest loop that there is: clients and their proxies are most of the work.

    Args:
        chosen: which.
        wanted: how much of each.
        begins: tells how far it is.
        postgres: URL of a server to use; None starts one.
        redis: the same.

    Raises:
        ConfigurationError: a server is needed and there is none to start, or the one given cannot be used.
        RetrysafeError: a server did not start.
    """
    loop = import_module("uvloop").new_event_loop if find_spec("uvloop") else None
    with tempfile.TemporaryDirectory(prefix="retrysafe-lab-") as name, asyncio.Runner(loop_factory=loop) as runner:
        folder = Path(name)
        folder.chmod(0o755)  # the server of a database is another user
        return runner.run(_run(chosen, wanted, begins, folder, urls=(postgres, redis)))


async def _run(
    chosen: Sequence[Strategy], wanted: Wanted, begins: Begins, folder: Path, *, urls: tuple[str | None, str | None]
) -> Found:
    figures = {}
    async with _opened(chosen, folder, *urls) as databases:
        versions = await _versions(databases)
        for strategy in chosen:
            place = folder / strategy.name
            await asyncio.to_thread(place.mkdir)
            figures[strategy.name] = await measure(strategy, wanted, databases, place, begins(strategy))
    return Found(figures, versions)


@asynccontextmanager
async def _opened(
    chosen: Sequence[Strategy], folder: Path, postgres: str | None, redis: str | None
) -> AsyncIterator[Databases]:
    """What the strategies use, and nothing else."""
    uses = {use for strategy in chosen for use in strategy.uses}
    async with AsyncExitStack() as stack:
        first = places.postgres(folder, postgres) if "postgres" in uses else nullcontext()
        second = places.redis_server(folder, redis) if "redis" in uses else nullcontext()
        yield Databases(await stack.enter_async_context(first), await stack.enter_async_context(second))


async def _versions(databases: Databases) -> tuple[str, ...]:
    servers = [server for server in (databases.postgres, databases.redis) if server is not None]
    told = [await server.version() for server in servers]
    return (f"SQLite {sqlite3.sqlite_version}", *told)
