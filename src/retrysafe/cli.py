"""The command line. Each command calls something else.

Exit codes, for all of it: 0 clean, 1 findings, 2 usage or configuration, 3 target or store unreachable.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from retrysafe.errors import ConfigurationError, RetrysafeError
from retrysafe.gateway import config as gateway_config
from retrysafe.gateway.config import SECRET_VARIABLE, SETTINGS, Setting, Settings, Value
from retrysafe.gateway.settings_file import find
from retrysafe.protocol.effects import Purge
from retrysafe.stores.location import open_store

try:
    import click
    from click.core import ParameterSource
except ModuleNotFoundError as missing:
    sys.stderr.write(f'retrysafe: the command line needs {missing.name}: pip install "retrysafe[cli]"\n')
    sys.exit(2)

MISCONFIGURED, UNREACHABLE = 2, 3


class Commands(click.Group):
    """Commands whose errors become one sentence each, and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            for fault in error.faults:
                click.echo(f"retrysafe: {fault}", err=True)
            ctx.exit(MISCONFIGURED)
        except RetrysafeError as error:
            click.echo(f"retrysafe: {error}", err=True)
            ctx.exit(UNREACHABLE)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
def main() -> None:
    """Make any API safe to retry."""


def option(name: str, **attributes: Any) -> Callable[[Any], Any]:
    """A click option with its environment variable, which the help shows."""
    variable = "RETRYSAFE_" + name.removeprefix("--").upper().replace("-", "_")
    return click.option(name, envvar=variable, show_envvar=True, **attributes)


def settings_options(*settings: Setting) -> Callable[[Any], Any]:
    """The options of these settings, and where the rest of them comes from."""
    made = [option(setting.option, help=_help(setting), metavar="TEXT") for setting in settings]
    made += [
        option("--secret-file", metavar="FILE", help=f"Holds the secret of key digests; or set {SECRET_VARIABLE}."),
        option(
            "--config",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            metavar="FILE",
            help="Settings file; else retrysafe.toml, or [tool.retrysafe] in pyproject.toml, in this folder.",
        ),
    ]

    def decorate(command: Any) -> Any:
        for add in reversed(made):
            command = add(command)
        return command

    return decorate


def _help(setting: Setting) -> str:
    return setting.help if setting.default is None else f"{setting.help}  [default: {setting.default}]"


def settings_of(ctx: click.Context) -> Settings:
    """What options, environment and file say together."""
    parameters = dict(ctx.params)
    named: Path | None = parameters.pop("config", None)
    options = parameters.pop("policy", ())
    policy = {}
    for text in options:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"--policy takes NAME=VALUE, and {text!r} has no equals sign")
        policy[name.strip()] = Value(value.strip(), _origin(ctx, "policy"))
    given = {name: Value(value, _origin(ctx, name)) for name, value in parameters.items() if isinstance(value, str)}
    secret = os.environ.get(SECRET_VARIABLE)
    if secret and ctx.get_parameter_source("secret_file") is not ParameterSource.COMMANDLINE:
        given["secret"] = Value(secret, SECRET_VARIABLE)
    return gateway_config.read(given, policy, find(named, Path.cwd()))


def _origin(ctx: click.Context, name: str) -> str:
    """How the user gave a parameter: the variable or the option."""
    if ctx.get_parameter_source(name) is ParameterSource.ENVIRONMENT:
        return "RETRYSAFE_" + name.upper()
    return "--" + name.replace("_", "-")


POLICY = option(
    "--policy", multiple=True, metavar="NAME=VALUE", help="Option of the policy, like lease=30s; may be repeated."
)


@main.command()
@settings_options(*SETTINGS)
@POLICY
@click.pass_context
def serve(ctx: click.Context, /, **_: Any) -> None:
    """Protect an API: serve as a gateway in front of it."""
    config = gateway_config.build(settings_of(ctx))
    from retrysafe.gateway.app import serve as serve_gateway  # noqa: PLC0415 - needs an extra

    serve_gateway(config, lambda line: click.echo(line, err=True))


@main.group()
def config() -> None:
    """Settings: what holds, and where it was set."""


@config.command()
@settings_options(*SETTINGS)
@POLICY
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def show(ctx: click.Context, /, *, as_json: bool, **_: Any) -> None:
    """Show every setting of the gateway and where it comes from; check them all."""
    settings = settings_of(ctx)
    gateway_config.build(settings)
    rows = gateway_config.effective(settings)
    if as_json:
        click.echo(json.dumps([{"setting": name, "value": value, "origin": origin} for name, value, origin in rows]))
    else:
        for name, value, origin in rows:
            click.echo(f"{name} = {json.dumps(value)}  # {origin}")


@main.command()
@settings_options(*(setting for setting in SETTINGS if setting.name == "store"))
@click.pass_context
def purge(ctx: click.Context, /, **_: Any) -> None:
    """Expire and forget the records whose time has come."""
    url, secret = gateway_config.build_store(settings_of(ctx))
    store = open_store(url)
    try:
        store.open(secret)
        expired = forgotten = 0
        more = True
        while more:
            purged = store.perform(Purge())
            expired, forgotten, more = expired + purged.expired, forgotten + purged.forgotten, purged.more
    finally:
        store.close()
    click.echo(f"expired {expired}, forgotten {forgotten}")


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
