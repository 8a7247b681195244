"""Verify any API from outside, and show what goes wrong without keys."""

from __future__ import annotations

from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import click

from retrysafe.cli.base import main, option
from retrysafe.errors import ConfigurationError


class Lines(click.types.StringParamType):
    """Text of which a variable of the environment may hold several, each on a line of its own."""

    envvar_list_splitter = "\n"


MANY: dict[str, Any] = {"multiple": True, "default": (), "type": Lines()}
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@main.command()
@click.argument("operation", nargs=-1, metavar="[METHOD URL]")
@option("--json", metavar="TEXT", help="Content; {{unique}} stands for the reference of each request.")
@option("--form", metavar="TEXT", help="Content that is a form, as it is sent: name=value&reference={{unique}}.")
@option("--header", **MANY, metavar="FIELD", help="Field of every request, as Name: value; may be repeated.")
@option("--account", **MANY, metavar="FIELD", help="Field that says who asks; may be repeated.")
@option("--other-account", **MANY, metavar="FIELD", help="The same of another account.")
@option("--second-credential", **MANY, metavar="FIELD", help="Another credential of the first account.")
@option(
    "--effects", metavar="TEXT", help="Counts effects: GET URL PATH, sql URL QUERY, cmd ..., metric ..., same PATH."
)
@option("--with", "with_", **MANY, metavar="NAME=OPERATION", help="Another operation, as slow='POST /orders?delay=2'.")
@option("--hook", **MANY, metavar="NAME=ACTION", help="What changes the target, as kill='cmd ...'.")
@option("--openapi", metavar="FILE|URL", help="OpenAPI document of the API.")
@option("--operation", "operation_id", metavar="ID", help="The operation in it.")
@option("--server", metavar="URL", help="Where the API is, if the document does not say so.")
@option("--docs", metavar="URL", help="Address of the documentation.")
@option("--origin", **MANY, metavar="ORIGIN", help="Origin that browsers may call from; twice.")
@option("--replica", metavar="URL", help="Base address of another replica.")
@option("--sandbox", metavar="URL", help="Base address of the sandbox.")
@option("--lifetime-s", type=float, metavar="SECONDS", help="How long a finished key replays, if that is short.")
@option("--lease-s", type=float, metavar="SECONDS", help="How long a dead worker holds a key.")
@option("--spare-field", metavar="NAME", help="Member that the API takes in the content and does not judge.")
@option("--required/--not-required", default=None, help="Whether a request without a key is refused.")
@option("--profile", metavar="NAME|FILE", help="What is expected: ietf, retrysafe, stripe-v1, ...  [default: ietf]")
@option("--i-own-this-api", is_flag=True, default=None, help="Allow hosts that are not this machine.")
@option("--suite", type=FILE, metavar="FILE", help="All of it as TOML.")
@option("--replay", type=FILE, metavar="FILE", help="Run what a JSON report has findings of.")
@option("--only", **MANY, metavar="ID", help="A case, or a group of them; may be repeated.")
@option("--core/--all", "core", default=True, help="The core cases, or all.  [default: core]")
@option("--strict", is_flag=True, help="What should be and is not is a finding too.")
@option("--jobs", type=click.IntRange(1, 16), default=1, show_default=True, help="How many cases run at once.")
@option("--rounds", type=click.IntRange(20, 10_000), default=20, show_default=True, help="Of each race.")
@option(
    "--effects-max", type=click.IntRange(1), default=20_000, show_default=True, help="The most requests that are sent."
)
@option("--html-report", metavar="FILE", help="One page that needs no network.")
@option("--junit-report", metavar="FILE", help="For CI.")
@option("--sarif-report", metavar="FILE", help="For code scanning.")
@option("--json-report", metavar="FILE", help="For programs, and for --replay.")
@option("--badge", metavar="FILE", help="An image for a README, as SVG.")
@click.option("--list", "only_list", is_flag=True, help="List the cases, and send nothing.")
@click.pass_context
def verify(ctx: click.Context, /, **options: Any) -> None:
    """Verify the idempotency keys of any running API, from outside."""
    try:
        from retrysafe.verify.command import verify as run_verify  # noqa: PLC0415 - needs an extra
    except ModuleNotFoundError as missing:
        raise ConfigurationError([str(missing)]) from missing
    ctx.exit(run_verify(options, click.echo))


@main.command()
@option("--orders", type=int, default=300, show_default=True, help="How many orders each shop gets.")
@click.option(
    "--stay/--no-stay", default=None, help="Keep the shops open at the end; the default is to, on a terminal."
)
@click.pass_context
def demo(ctx: click.Context, /, orders: int, *, stay: bool | None) -> None:
    """Two shops on a bad network: one charges twice, one does not."""
    try:
        from retrysafe.demo import run  # noqa: PLC0415 - needs an extra
    except ModuleNotFoundError as missing:
        raise ConfigurationError([f'the demo needs {missing.name}: pip install "retrysafe[cli]"']) from missing
    ctx.exit(run(orders=orders, stay=stay))


@main.command()
def version() -> None:
    """Show the version."""
    click.echo(f"retrysafe {version_of('retrysafe')}")
