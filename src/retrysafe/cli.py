"""The command line. Each command calls something else.

Exit codes, for all of it: 0 clean, 1 findings, 2 usage or configuration, 3 target or store unreachable.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from retrysafe.errors import ConfigurationError, RetrysafeError
from retrysafe.gateway import config as gateway_config
from retrysafe.gateway.config import ENCRYPTION_VARIABLE, SECRET_VARIABLE, SETTINGS, Setting, Settings, Value
from retrysafe.gateway.settings_file import find
from retrysafe.operate import migrate as migration
from retrysafe.operate import stats as statistics
from retrysafe.operate.opened import opened
from retrysafe.operate.purge import purge as purge_all
from retrysafe.protocol.effects import ANSWER_DAYS_KEPT, TakeStats

try:
    import click
    from click.core import ParameterSource
except ModuleNotFoundError as missing:
    sys.stderr.write(f'retrysafe: the command line needs {missing.name}: pip install "retrysafe[cli]"\n')
    sys.exit(2)

FINDINGS, MISCONFIGURED, UNREACHABLE = 1, 2, 3


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


def settings_options(*settings: Setting, keys: bool = False) -> Callable[[Any], Any]:
    """The options of these settings, and where the rest of them comes from; with `keys`, those of stored responses."""
    made = [option(setting.option, help=_help(setting), metavar="TEXT") for setting in settings]
    made += [ENCRYPTION_KEYS_FILE] if keys else []
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


ENCRYPTION_KEYS_FILE = option(
    "--encryption-keys-file",
    metavar="FILE",
    help=f"Holds the keys that stored responses are encrypted with; or set {ENCRYPTION_VARIABLE}.",
)


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
    for name, variable in (("secret", SECRET_VARIABLE), ("encryption_keys", ENCRYPTION_VARIABLE)):
        hidden = os.environ.get(variable)
        # Encryption keys that are set to nothing are a fault: taken as not set, they would leave responses plain.
        is_set = bool(hidden) if name == "secret" else hidden is not None
        if is_set and ctx.get_parameter_source(f"{name}_file") is not ParameterSource.COMMANDLINE:
            given[name] = Value(hidden, variable)
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
@settings_options(*SETTINGS, keys=True)
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
@settings_options(*SETTINGS, keys=True)
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


# --- operating a store --------------------------------------------------------------------------

STORE = [setting for setting in SETTINGS if setting.name == "store"]
AS_JSON = click.option("--json", "as_json", is_flag=True, help="As JSON.")


def show_progress(line: str) -> None:
    """Say on a terminal how far it is, over what was said before; elsewhere nothing."""
    if sys.stderr.isatty():
        click.echo(f"\r{line}", nl=False, err=True)


def end_progress() -> None:
    """Leave the line that progress was shown on."""
    if sys.stderr.isatty():
        click.echo(err=True)


@main.command()
@settings_options(*STORE)
@AS_JSON
@click.pass_context
def purge(ctx: click.Context, /, *, as_json: bool, **_: Any) -> None:
    """Expire and forget the records whose time has come, in batches until none is left."""
    with opened(*gateway_config.build_store(settings_of(ctx))) as (store, _secret):
        done = purge_all(store, lambda now: show_progress(f"expired {now.expired}, forgotten {now.forgotten}"))
    end_progress()
    if as_json:
        click.echo(json.dumps({"expired": done.expired, "forgotten": done.forgotten}))
    else:
        click.echo(f"expired {done.expired}, forgotten {done.forgotten}")


@main.command()
@settings_options(*STORE)
@option("--days", type=click.IntRange(1, ANSWER_DAYS_KEPT), default=7, show_default=True, help="Answers of how long.")
@AS_JSON
@click.pass_context
def stats(ctx: click.Context, /, *, days: int, as_json: bool, **_: Any) -> None:
    """Show what is in a store, by state and route, and how much of it was replayed."""
    with opened(*gateway_config.build_store(settings_of(ctx))) as (store, _secret):
        taken = store.perform(TakeStats(days))
    if as_json:
        click.echo(json.dumps(statistics.document(taken)))
    else:
        for line in statistics.lines(taken, days):
            click.echo(line)


@main.command()
@settings_options(*STORE)
@click.option(
    "--print", "only_print", is_flag=True, help="Print the SQL of the missing migrations, and change nothing."
)
@click.pass_context
def migrate(ctx: click.Context, /, *, only_print: bool, **_: Any) -> None:
    """Bring the schema of a store up to date, once no process of the last release uses it."""
    url, _secret = gateway_config.build_store(settings_of(ctx))
    if only_print:
        for line in migration.script(migration.missing(url)):
            click.echo(line)
        return
    for migrated in (missing := migration.migrate(url)):
        click.echo(f"gone through {migrated}")
    if not missing:
        click.echo("the schema is up to date")


@main.group()
def keys() -> None:
    """Keys of records, and the keys that stored responses are encrypted with."""


@keys.command()
@settings_options(*STORE, keys=True)
@AS_JSON
@click.pass_context
def rotate(ctx: click.Context, /, *, as_json: bool, **_: Any) -> None:
    """Encrypt every stored response with the first of the encryption keys."""
    settings = settings_of(ctx)
    encryption_keys = gateway_config.build_encryption(settings)
    from retrysafe.encryption import key_ring  # noqa: PLC0415 - needs an extra
    from retrysafe.operate import rotate as rotation  # noqa: PLC0415 - as above

    def tell(now: rotation.Rotated) -> None:
        show_progress(rotation.line(now))

    with opened(*gateway_config.build_store(settings)) as (store, secret):
        done = asyncio.run(rotation.rotate(store, secret, key_ring(encryption_keys), tell))
    end_progress()
    click.echo(json.dumps(rotation.document(done)) if as_json else rotation.line(done))
    if done.unreadable or done.waiting:
        ctx.exit(FINDINGS)


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
