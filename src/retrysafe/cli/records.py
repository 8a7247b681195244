"""List, look at and settle records by hand; encrypt their responses anew."""

from __future__ import annotations

import asyncio
import getpass
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click

from retrysafe.cli.base import (
    AS_JSON,
    FINDINGS,
    POLICY,
    STORE,
    end_progress,
    main,
    option,
    settings_of,
    settings_options,
    show_progress,
)
from retrysafe.gateway import config as gateway_config
from retrysafe.gateway.config import SETTINGS
from retrysafe.model import Response, State
from retrysafe.operate import keys as records
from retrysafe.operate import shown, which
from retrysafe.operate.opened import opened
from retrysafe.protocol.duration import milliseconds
from retrysafe.protocol.transitions import ReadDetails
from retrysafe.server.settings import encryption_of

DESK = [setting for setting in SETTINGS if setting.name in {"store", "namespace"}]
LINE_FILE = click.Path(exists=True, dir_okay=False, allow_dash=True)
STUCK = "stuck"
STATES = [*(state.value for state in State), STUCK]


def _by_key(command: Any) -> Any:
    """The argument and the options that name a record."""
    for add in (
        option("--account-file", of="KEY_", type=LINE_FILE, help="Holds the account; for one that is a credential."),
        option("--account", of="KEY_", metavar="TEXT", help="Whose key it is, as the scope of the door gives it."),
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
        encryption = encryption_of(config.encryption_keys)
        yield records.Desk(store, secret, encryption, config.policy_of, config.dual_control), record_id


def _line_of(path: str, what: str) -> str:
    """The first line of a file, or the next of the standard input; on a terminal it is asked for, and not shown."""
    if path == "-" and sys.stdin.isatty():
        prompted: str = click.prompt(what, hide_input=True, err=True)
        return prompted
    with nullcontext(sys.stdin) if path == "-" else Path(path).open(encoding="utf-8", errors="surrogateescape") as file:
        return file.readline().rstrip("\r\n")


def _hand_of(ctx: click.Context) -> records.Hand:
    given = ctx.params
    return records.hand(given["actor"] or getpass.getuser(), given["note"], approves=given["approve"])


def _agreed(ctx: click.Context, danger: str) -> None:
    """Go on only if somebody has said that they know the danger."""
    if not ctx.params["yes"]:
        raise click.UsageError(f"{danger} Give --yes if that is what you want.")


@main.group()
def keys() -> None:
    """Look at and settle records of clients' keys.

    And encrypt their responses with another key.
    """


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
    """List records by state, route and age.

    stuck is: in progress, and the lease is over.
    """
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
    """Show a record, its attempts, and what people did to it.

    Of its response where it stands, and with --response what it is.
    """
    with desk_of(ctx) as (desk, record_id):
        details = desk.store.perform(ReadDetails(record_id))
    if details.found is None and not details.history:
        raise which.NoSuchRecord(f"there is no such record, and no history of one; {which.CHECK}")
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
    """Say what became of a request whose outcome is unknown.

    Find out first.
    """
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
    """Take a claim from an owner that is known to be dead.

    The next retry runs.
    """
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
    """Encrypt every stored response with the first key."""
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
