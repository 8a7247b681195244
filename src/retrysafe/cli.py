"""The command line. Each command calls something else.

Exit codes, for all of it: 0 clean, 1 findings, 2 usage or configuration, 3 target or store unreachable,
4 inconclusive. Never 0 with nothing checked.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from retrysafe.errors import ConfigurationError, RetrysafeError
from retrysafe.gateway import config as gateway_config
from retrysafe.gateway.config import ENCRYPTION_VARIABLE, SECRET_VARIABLE, SETTINGS, Setting, Settings, Value
from retrysafe.gateway.published import build_published
from retrysafe.gateway.settings_file import find
from retrysafe.model import Response, State
from retrysafe.operate import keys as records
from retrysafe.operate import migrate as migration
from retrysafe.operate import shown, which
from retrysafe.operate import stats as statistics
from retrysafe.operate.opened import opened
from retrysafe.operate.purge import purge as purge_all
from retrysafe.operation.recovery import Report
from retrysafe.protocol.duration import milliseconds
from retrysafe.protocol.published_page import page
from retrysafe.protocol.snapshot import Encryption
from retrysafe.protocol.transitions import ANSWER_DAYS_KEPT, ReadDetails, TakeStats
from retrysafe.server.named import named

try:
    import click
    from click.core import ParameterSource
except ModuleNotFoundError as missing:
    sys.stderr.write(f'retrysafe: the command line needs {missing.name}: pip install "retrysafe[cli]"\n')
    sys.exit(2)

FINDINGS, MISCONFIGURED, UNREACHABLE, INCONCLUSIVE = 1, 2, 3, 4


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
            ctx.exit(_exit_code(error))


def _exit_code(error: RetrysafeError) -> int:
    if isinstance(error, records.Refused | which.NoSuchRecord):
        return FINDINGS
    return INCONCLUSIVE if isinstance(error, records.InDoubt) else UNREACHABLE


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
def main() -> None:
    """Make any API safe to retry."""


def option(name: str, *parameter: str, **attributes: Any) -> Callable[[Any], Any]:
    """A click option with its environment variable, which the help shows."""
    variable = "RETRYSAFE_" + name.partition("/")[0].removeprefix("--").upper().replace("-", "_")
    return click.option(name, *parameter, envvar=variable, show_envvar=True, **attributes)


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
@click.argument("application", metavar="[MODULE:APP]", required=False)
@settings_options(*(setting for setting in SETTINGS if setting.name in ("scope", "status_path")))
@POLICY
@AS_JSON
@click.pass_context
def contract(ctx: click.Context, /, application: str | None, *, as_json: bool, **_: Any) -> None:
    """Print what clients may rely on: a page for them, of an application or of the gateway."""
    if application is None:
        published = build_published(settings_of(ctx))
    else:
        from retrysafe.operate.published import published_by  # noqa: PLC0415 - a door, for this command alone

        published = published_by(named(application), application)
    document = published.document()
    click.echo(json.dumps(document, indent=2) if as_json else page(document), nl=as_json)


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


# --- records by hand ----------------------------------------------------------------------------

DESK = [setting for setting in SETTINGS if setting.name in {"store", "namespace"}]
LINE_FILE = click.Path(exists=True, dir_okay=False, allow_dash=True)
STUCK = "stuck"
STATES = [*(state.value for state in State), STUCK]


def _by_key(command: Any) -> Any:
    """The argument and the options that name a record."""
    for add in (
        option("--account-file", type=LINE_FILE, help="Holds the account; for one that is a credential."),
        option("--account", metavar="TEXT", help="Whose key it is, as the scope of the door gives it."),
        click.option("--key-file", type=LINE_FILE, help="Holds the client's key, instead of ID; - asks for it."),
        click.argument("record", metavar="[ID]", required=False),
    ):
        command = add(command)
    return command


def _as_hand(command: Any) -> Any:
    """The options that say who settles, and why."""
    for add in (
        click.option("--approve", is_flag=True, help="Do what somebody else has proposed, where it takes two."),
        option("--actor", metavar="NAME", help="Who does it; else the user of the operating system."),
        click.option("--note", metavar="TEXT", required=True, help="How it was found out; kept with the record."),
    ):
        command = add(command)
    return command


def _settling(command: Any) -> Any:
    """All options of a command that settles one record."""
    return settings_options(*DESK, keys=True)(POLICY(_by_key(_as_hand(command))))


@contextmanager
def desk_of(ctx: click.Context) -> Iterator[tuple[records.Desk, bytes]]:
    """What a record is settled with, and the id of the record that the command names."""
    config = gateway_config.build_operator(settings_of(ctx))
    given = ctx.params
    if (given["record"] is None) == (given["key_file"] is None):
        raise click.UsageError("name the record: either its ID, or --key-file and --account")
    with opened(config.store, config.secret) as (store, secret):
        if given["record"] is not None:
            record_id = which.by_id(store, given["record"])
        else:
            key = _line_of(given["key_file"], "Idempotency-Key")
            account = _line_of(given["account_file"], "Account") if given["account_file"] else given["account"] or ""
            record_id = which.by_key(secret, config.namespace, account, key)
        encryption = _encryption_of(config.encryption_keys)
        yield records.Desk(store, secret, encryption, config.policy_of, config.dual_control), record_id


def _line_of(path: str, what: str) -> str:
    """The first line of a file, or the next of the standard input; on a terminal it is asked for, and not shown."""
    if path == "-" and sys.stdin.isatty():
        prompted: str = click.prompt(what, hide_input=True, err=True)
        return prompted
    with nullcontext(sys.stdin) if path == "-" else Path(path).open(encoding="utf-8", errors="surrogateescape") as file:
        return file.readline().rstrip("\r\n")


def _encryption_of(keys: str | None) -> Encryption | None:
    if keys is None:
        return None
    from retrysafe.encryption import key_ring  # noqa: PLC0415 - needs an extra

    return key_ring(keys)


def _hand_of(ctx: click.Context) -> records.Hand:
    given = ctx.params
    return records.hand(given["actor"] or getpass.getuser(), given["note"], approves=given["approve"])


def _agreed(ctx: click.Context, danger: str) -> None:
    """Go on only if somebody has said that they know the danger."""
    if not ctx.params["yes"]:
        raise click.UsageError(f"{danger} Give --yes if that is what you want.")


@main.group()
def keys() -> None:
    """Keys of clients: list, look at and settle their records. And the keys of stored responses."""


@keys.command("list")
@settings_options(*STORE)
@click.option("--state", "states", multiple=True, type=click.Choice(STATES), help="May be repeated.")
@click.option("--route", metavar="ROUTE", help="Only records of this entry of the routes table.")
@click.option("--older-than", metavar="DURATION", default="0s", help="Only if the latest claim is so old, like 15m.")
@option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="How many at most.")
@AS_JSON
@click.pass_context
def list_(  # noqa: PLR0913 - each is an option
    ctx: click.Context,
    /,
    *,
    states: tuple[str, ...],
    route: str | None,
    older_than: str,
    limit: int,
    as_json: bool,
    **_: Any,
) -> None:
    """List records. stuck: in progress, and the lease is over."""
    try:
        older_than_ms = milliseconds(older_than)
    except ValueError as error:
        raise click.UsageError(f"--older-than: {error}") from None
    chosen = tuple(State(state) for state in states if state != STUCK) if states else tuple(State)
    wanted = records.Wanted(chosen, STUCK in states, route, older_than_ms, limit)
    with opened(*gateway_config.build_store(settings_of(ctx))) as (store, _secret):
        listing = records.list_records(store, wanted)
    if as_json:
        click.echo(json.dumps(shown.list_document(listing)))
        return
    for line in shown.list_lines(listing):
        click.echo(line)
    if listing.more or not listing.records:
        click.echo(f"there are more than {limit}; raise --limit" if listing.more else "no such records", err=True)


@keys.command("show")
@settings_options(*DESK, keys=True)
@_by_key
@click.option("--response", "with_content", is_flag=True, help="The stored response too: its headers and content.")
@AS_JSON
@click.pass_context
def show_record(ctx: click.Context, /, *, with_content: bool, as_json: bool, **_: Any) -> None:
    """Show a record: its state, its attempts, what people did to it, and where its response stands."""
    with desk_of(ctx) as (desk, record_id):
        details = desk.store.perform(ReadDetails(record_id))
    if details.found is None and not details.history:
        raise which.NoSuchRecord("there is no such record, and no history of one")
    response = shown.response_of(details, record_id, desk.secret, desk.encryption)
    steps = shown.Steps(details.journal, record_id, desk.secret, desk.encryption)
    if as_json:
        click.echo(json.dumps(shown.document(record_id, details, response, steps, with_content=with_content)))
        return
    for line in shown.lines(record_id, details, response, steps):
        click.echo(line)
    for line in shown.content_lines(response) if with_content and response else ():
        click.echo(line)


@keys.command()
@_settling
@click.option("--completed/--not-done", default=None, help="It took effect, or it did not.")
@click.option("--status", type=int, help="Of the answer that retries get. With --completed.")
@click.option("--header", "headers", multiple=True, metavar="FIELD", help="'Name: value'; may be repeated.")
@click.option("--body", type=click.File("rb"), help="Holds the content of the answer; none without.")
@click.pass_context
def resolve(
    ctx: click.Context, /, *, completed: bool | None, status: int | None, headers: tuple[str, ...], body: Any, **_: Any
) -> None:
    """Say what became of a request whose outcome is unknown, once you have found out."""
    if completed is None:
        raise click.UsageError("say what became of it: --completed, or --not-done")
    if completed is not (status is not None) or (not completed and (headers or body)):
        raise click.UsageError(
            "--completed takes --status, and may have --header and --body; --not-done has none of them"
        )
    by = _hand_of(ctx)
    fields = tuple(records.header_of(field) for field in headers)
    with desk_of(ctx) as (desk, record_id):
        if completed:
            response = Response(status or 0, fields, body.read() if body else b"")
            record = records.complete(desk, record_id, response, by)
        else:
            record = records.rule_out(desk, record_id, by)
    click.echo(shown.settled(record_id, record))


@keys.command()
@_settling
@click.option("--yes", is_flag=True, help="The owner is known to be dead.")
@click.pass_context
def release(ctx: click.Context, /, **_: Any) -> None:
    """Take the claim of a record in progress from its owner, so that the next retry runs."""
    _agreed(ctx, "If the owner still runs, or has taken effect, the effect happens twice.")
    by = _hand_of(ctx)
    with desk_of(ctx) as (desk, record_id):
        record = records.release(desk, record_id, by)
    click.echo(shown.settled(record_id, record))


@keys.command()
@_settling
@click.option("--yes", is_flag=True, help="A retry may run as if it were the first.")
@click.pass_context
def forget(ctx: click.Context, /, **_: Any) -> None:
    """Delete a record that nobody holds. Its history stays."""
    _agreed(ctx, "Retries with this key will run as new operations, whatever happened before.")
    by = _hand_of(ctx)
    with desk_of(ctx) as (desk, record_id):
        done = records.forget(desk, record_id, by)
    forgotten = f"record {record_id.hex()}: forgotten; a retry is a new operation"
    click.echo(forgotten if done else shown.settled(record_id, None))


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


# --- proving ------------------------------------------------------------------------------------


class Lines(click.types.StringParamType):
    """Text of which a variable of the environment may hold several, each on a line of its own."""

    envvar_list_splitter = "\n"


MANY: dict[str, Any] = {"multiple": True, "default": (), "type": Lines()}
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@main.command()
@click.argument("operation", nargs=-1, metavar="[METHOD URL]")
@option("--json", metavar="TEXT", help="Content; {{unique}} stands for the reference of each request.")
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
@option(
    "--replay",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Run what a JSON report has findings of.",
)
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
@click.argument("application", metavar="[MODULE:APP]", required=False)
@settings_options(*SETTINGS, keys=True)
@POLICY
@option("--every", default="30s", show_default=True, metavar="TEXT", help="About how long to wait between two passes.")
@click.option("--once", is_flag=True, help="One pass, and an exit code that says whether something is left to look at.")
@AS_JSON
@click.pass_context
def recover(ctx: click.Context, /, application: str | None, *, every: str, once: bool, as_json: bool, **_: Any) -> None:
    """Send abandoned requests again, and ask about unknown outcomes: of an application, or of the gateway."""
    every_s = seconds("--every", every)
    from retrysafe.operate import recover as recovery  # noqa: PLC0415 - a door, for this command alone

    if application is not None:
        doors = recovery.doors_of(named(application), application)
    else:
        config = gateway_config.build(settings_of(ctx))
        from retrysafe.gateway.app import opened_doors  # noqa: PLC0415 - needs an extra

        doors = opened_doors(config)

    def show(now: Report) -> None:
        if now.counts:
            click.echo(json.dumps(now.document()) if as_json else now.line())

    if not once:
        asyncio.run(recovery.run(doors, every_s, show, show_failure))
        return
    report = asyncio.run(recovery.run(doors, None, lambda now: show_progress(now.line()), show_failure))
    end_progress()
    click.echo(json.dumps(report.document()) if as_json else report.line())
    ctx.exit(0 if report.clean else FINDINGS)


def seconds(name: str, duration: str) -> float:
    """A duration of the command line in seconds."""
    try:
        return milliseconds(duration) / 1_000
    except ValueError as error:
        raise ConfigurationError([f"{name}: {error}"]) from None


def show_failure(error: RetrysafeError) -> None:
    """Say that something failed that will be tried again."""
    click.echo(f"retrysafe: {error}", err=True)


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
