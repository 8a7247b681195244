"""What all commands share: how errors become exit codes, where settings come from, how progress is shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from retrysafe.errors import ConfigurationError, RetrysafeError
from retrysafe.gateway import config as gateway_config
from retrysafe.gateway.config import ENCRYPTION_VARIABLE, SECRET_VARIABLE, SETTINGS, Setting, Settings, Value
from retrysafe.gateway.settings_file import find
from retrysafe.operate import keys as records
from retrysafe.operate import which

try:
    import click
    from click.core import ParameterSource
except ModuleNotFoundError as missing:
    sys.stderr.write(f'retrysafe: the command line needs {missing.name}: pip install "retrysafe[cli]"\n')
    sys.exit(2)

FINDINGS, MISCONFIGURED, UNREACHABLE, INCONCLUSIVE, INTERRUPTED = 1, 2, 3, 4, 130


class Commands(click.Group):
    """Commands whose errors become one sentence each, and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort):  # click would say 1, which is findings
            click.echo("retrysafe: interrupted", err=True)
            ctx.exit(INTERRUPTED)
        except ConfigurationError as error:
            for fault in error.faults:
                click.echo(f"retrysafe: {fault}", err=True)
            ctx.exit(MISCONFIGURED)
        except RetrysafeError as error:
            click.echo(f"retrysafe: {error}", err=True)
            ctx.exit(_exit_code(error))


def _exit_code(error: RetrysafeError) -> int:
    if isinstance(error, records.Refused | which.NoSuchRecord):
        return FINDINGS
    return INCONCLUSIVE if isinstance(error, records.InDoubt) else UNREACHABLE


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="retrysafe", message="%(prog)s %(version)s")
def main() -> None:
    """Make any API safe to retry, and prove it."""


def option(name: str, *parameter: str, of: str = "", **attributes: Any) -> Callable[[Any], Any]:
    """A click option with its environment variable, which the help shows.

    Args:
        name: of the option.
        parameter: the name of its value, if that is another.
        of: keeps apart what is called the same and means something else to another command.
        attributes: as click has them.
    """
    variable = name.partition("/")[0].removeprefix("--").upper().replace("-", "_")
    return click.option(name, *parameter, envvar=f"RETRYSAFE_{of}{variable}", show_envvar=True, **attributes)


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
