"""The laboratory: faults in front of any server, a storm of retries at any API, strategies side by side."""

from __future__ import annotations

import asyncio
import random

import click

from retrysafe.cli.base import AS_JSON, main, option
from retrysafe.cli.proving import MANY
from retrysafe.faults import parse

SEED = option("--seed", type=int, metavar="NUMBER", help="Of all chance; without it one is drawn, and printed.")


def _seed(given: int | None) -> int:
    return random.SystemRandom().randrange(1 << 32) if given is None else given


@main.group()
def lab() -> None:
    """Put an API through faults: a chaos proxy, a storm, strategies."""


@lab.command()
@option("--to", required=True, metavar="HOST:PORT", help="The server; postgresql://HOST:PORT, redis://... for these.")
@option("--fault", **MANY, required=True, metavar="NAME[:ARGUMENT][@SHARE%]", help="Like lose-response@5%; repeatable.")
@option("--listen", default="127.0.0.1:0", show_default=True, metavar="HOST:PORT", help="Where; port 0 is any.")
@SEED
@AS_JSON
def proxy(*, to: str, fault: tuple[str, ...], listen: str, seed: int | None, as_json: bool) -> None:
    """Stand in front of a server, and make faults happen.

    Until Ctrl-C. Of HTTP, PostgreSQL and Redis it knows where requests and answers end.
    """
    from retrysafe.lab.proxying import Wanted, run  # noqa: PLC0415 - only this command needs it

    asyncio.run(run(Wanted(to, parse(fault), _seed(seed), listen, as_json), click.echo))
