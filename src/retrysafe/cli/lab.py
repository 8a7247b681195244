"""The laboratory: faults in front of any server, a storm of retries at any API, strategies side by side."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import Any

import click

from retrysafe.cli.base import AS_JSON, main, option
from retrysafe.cli.proving import MANY
from retrysafe.cli.upkeep import seconds
from retrysafe.errors import ConfigurationError
from retrysafe.faults import parse

_own = partial(option, of="LAB_")  # what means something else to other commands, or nothing
SEED = _own("--seed", type=int, metavar="NUMBER", help="Of all chance; without it one is drawn, and printed.")


def _seed(given: int | None) -> int:
    return random.SystemRandom().randrange(1 << 32) if given is None else given


@main.group()
def lab() -> None:
    """Put an API through faults: a chaos proxy, a storm, strategies."""


@lab.command()
@_own("--to", required=True, metavar="HOST:PORT", help="The server; postgresql://HOST:PORT, redis://... for these.")
@_own("--fault", **MANY, required=True, metavar="NAME[:ARGUMENT][@SHARE%]", help="Like lose-response@5%; repeatable.")
@_own("--listen", default="127.0.0.1:0", show_default=True, metavar="HOST:PORT", help="Where; port 0 is any.")
@SEED
@AS_JSON
def proxy(*, to: str, fault: tuple[str, ...], listen: str, seed: int | None, as_json: bool) -> None:
    """Stand in front of a server, and make faults happen.

    Until Ctrl-C. Of HTTP, PostgreSQL and Redis it knows where requests and answers end.
    """
    from retrysafe.lab.proxying import Wanted, run  # noqa: PLC0415 - only this command needs it

    asyncio.run(run(Wanted(to, parse(fault), _seed(seed), listen, as_json), click.echo))


@lab.command()
@click.argument("operation", nargs=-1, metavar="[METHOD] URL")
@option("--json", metavar="TEXT", help="Content; {{unique}} stands for the reference of each operation.")
@option("--header", **MANY, metavar="FIELD", help="Field of every request, as Name: value; may be repeated.")
@option("--account", **MANY, metavar="FIELD", help="Field that says who asks; may be repeated.")
@option("--effects", metavar="TEXT", help="Counts effects, with {{unique}}: GET URL PATH, sql URL QUERY, or cmd ...")
@option("--profile", metavar="NAME|FILE", help="How the API takes keys: ietf, stripe-v1, ...  [default: ietf]")
@option("--i-own-this-api", is_flag=True, default=None, help="Allow hosts that are not this machine.")
@_own("--operations", type=click.IntRange(1, 1_000_000), default=300, show_default=True, help="How many.")
@_own("--clients", type=click.IntRange(1, 500), default=16, show_default=True, help="How many are at work at once.")
@_own("--attempts", type=click.IntRange(2, 100), default=10, show_default=True, help="Of an operation, at most.")
@_own("--timeout", default="2s", show_default=True, metavar="TEXT", help="How long a client waits for an answer.")
@_own("--fault", **MANY, metavar="NAME[:ARGUMENT][@SHARE%]", help="Like lose-response@5%; repeatable.")
@option("--effects-max", type=click.IntRange(1), default=20_000, show_default=True, help="The most requests.")
@option("--json-report", metavar="FILE", help="For programs.")
@SEED
@click.pass_context
def storm(ctx: click.Context, /, *, seed: int | None, timeout: str, **options: Any) -> None:
    """Send operations with retries through a bad network.

    At any API; and count duplicates, losses and wrong answers.
    """
    try:
        from retrysafe.lab.storming import run  # noqa: PLC0415 - needs an extra
    except ModuleNotFoundError as missing:
        raise ConfigurationError([str(missing)]) from missing
    ctx.exit(run({**options, "timeout_s": seconds("--timeout", timeout)}, _seed(seed), click.echo))


@lab.command()
@_own("--orders", type=click.IntRange(100, 10_000_000), default=2_000, show_default=True, help="Of each strategy.")
@_own("--clients", type=click.IntRange(1, 500), default=64, show_default=True, help="How many are at work at once.")
@_own("--timeout", default="500ms", show_default=True, metavar="TEXT", help="How long a client waits for an answer.")
@_own("--calm-orders", type=click.IntRange(20, 100_000), default=500, show_default=True, help="For the latency.")
@_own("--only", **MANY, metavar="NAME", help="A strategy, with what it is held against; may be repeated.")
@_own("--postgres", metavar="URL", help="A server to use, by a user who may create databases; else one is started.")
@_own("--redis", metavar="URL", help="An empty database to use, and to be emptied; else a server is started.")
@_own("--write-docs", metavar="FILE", help="Write table and charts into this page too, between its markers.")
@click.option("--list", "only_list", is_flag=True, help="List the strategies, and measure nothing.")
@SEED
@AS_JSON
@click.pass_context
def strategies(ctx: click.Context, /, *, seed: int | None, timeout: str, **options: Any) -> None:
    """Measure ways to make an API safe to retry, side by side.

    Under the same load and faults: duplicates, losses, wrong answers, latency, bytes, round trips.
    """
    try:
        from retrysafe.lab.strategies.command import strategies as compare  # noqa: PLC0415 - needs extras
    except ModuleNotFoundError as missing:
        needs = f'the strategies need {missing.name}: pip install "retrysafe[gateway,postgres,redis]"'
        raise ConfigurationError([needs]) from missing
    ctx.exit(compare({**options, "timeout_s": seconds("--timeout", timeout)}, _seed(seed), click.echo))
