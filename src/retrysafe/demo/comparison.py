"""The demo as a whole: open both shops, send both the same, count, judge, and perhaps stay open."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from retrysafe.demo import report
from retrysafe.demo.client import Traffic, send_all
from retrysafe.demo.plan import Order, make_plan
from retrysafe.demo.processes import HOST, Child, await_ready, child, free_port, stay_open, terminated_politely
from retrysafe.demo.shop import PRICES_CENTS
from retrysafe.demo.tally import arrivals, findings, read_tally
from retrysafe.errors import ConfigurationError

SEED = 1
_STOCK_PER_ORDER = 5  # of each item: no shop sells out, not even one that sends everything three times
_QUIET_MS = 400
_QUIET_LOOKS_MAX = 10


def run(orders: int = 300, stay: bool | None = None, seed: int = SEED) -> int:
    """Show what retries do to a shop, and what they do to it behind `retrysafe serve`.

    Args:
        orders: how many to send to each shop.
        stay: keep both shops open until Ctrl-C; None does so if standard output is a terminal.
        seed: of the faults; the same seed makes the same plan.

    Returns:
        0, or 1 if the protected shop has a duplicate or lacks an order, or the bare one has no
        duplicate: then the demo shows nothing.

    Raises:
        ConfigurationError: the number of orders is out of bounds, or a library is not installed.
        RetrysafeError: one of the servers did not start.
    """
    _require("uvicorn", "aiohttp")
    console = Console(highlight=False)
    plan = make_plan(orders, seed)
    stock = _STOCK_PER_ORDER * orders
    report.show_plan(console, plan, seed)
    with (
        terminated_politely(),
        tempfile.TemporaryDirectory(prefix="retrysafe-demo-") as folder,
        _servers(Path(folder), stock) as (bare, protected),
    ):
        databases = [_database(Path(folder), name) for name in ("bare", "protected")]
        bare_saw, protected_saw = asyncio.run(_send_to_both(plan, bare, protected, databases))
        stock_before = stock * len(PRICES_CENTS)
        bare_tally, protected_tally = (read_tally(database, plan, stock_before) for database in databases)
        wrong = findings(bare_tally, protected_tally, protected_saw)
        report.show_tallies(console, bare_tally, protected_tally, bare_saw, protected_saw)
        report.show_verdict(console, wrong)
        if sys.stdout.isatty() if stay is None else stay:
            report.show_addresses(console, bare.url, protected.url)
            stay_open(protected)
    return 1 if wrong else 0


@contextmanager
def _servers(folder: Path, stock: int) -> Iterator[tuple[Child, Child]]:
    """A bare shop, and the gateway before another one, all ready."""
    with ExitStack() as running:
        bare = running.enter_context(_shop(folder, "bare", stock))
        hidden = running.enter_context(_shop(folder, "protected", stock))
        gateway = running.enter_context(_gateway(folder, hidden))
        for server in (bare, hidden, gateway):
            await_ready(server, "/stock")
        yield bare, gateway


@contextmanager
def _shop(folder: Path, name: str, stock: int) -> Iterator[Child]:
    port = free_port()
    arguments = ("--factory", "retrysafe.demo.shop:from_environment", "--host", HOST, "--port", str(port))
    quietly = ("--loop", "asyncio", "--lifespan", "off", "--log-level", "warning", "--no-access-log")
    environment = {"SHOP_DATABASE": str(_database(folder, name)), "SHOP_STOCK": str(stock)}
    with child(f"{name}-shop", ("uvicorn", *arguments, *quietly), port, folder, environment) as shop:
        yield shop


@contextmanager
def _gateway(folder: Path, shop: Child) -> Iterator[Child]:
    port = free_port()
    where = ("--upstream", shop.url, "--listen", f"{HOST}:{port}", "--store", f"sqlite:///{folder / 'retrysafe.db'}")
    with child(
        "gateway", ("retrysafe", "serve", *where, "--scope", "header:X-Account-Id"), port, folder, {}
    ) as gateway:
        yield gateway


def _database(folder: Path, name: str) -> Path:
    return folder / f"{name}.db"


async def _send_to_both(
    plan: Sequence[Order], bare: Child, protected: Child, databases: Sequence[Path]
) -> tuple[Traffic, Traffic]:
    with report.progress(["bare", "retrysafe"], len(plan)) as (bare_settled, protected_settled):
        bare_saw = await send_all(bare.url, plan, bare_settled)
        protected_saw = await send_all(protected.url, plan, protected_settled)
    await _quiet(databases)
    return bare_saw, protected_saw


async def _quiet(databases: Sequence[Path]) -> None:
    """Wait until nothing more arrives: a request whose connection was cut may still be on its way to the shop."""
    seen: list[int] = []
    for _ in range(_QUIET_LOOKS_MAX):
        before, seen = seen, [arrivals(database) for database in databases]
        if seen == before:
            return
        await asyncio.sleep(_QUIET_MS / 1_000)


def _require(*modules: str) -> None:
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise ConfigurationError([f'the demo needs {" and ".join(missing)}: pip install "retrysafe[gateway]"'])
