"""Look after a store: what is in it, its schema, what is over, what nobody drives any more."""

from __future__ import annotations

import asyncio
import json
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
from retrysafe.errors import ConfigurationError, RetrysafeError
from retrysafe.gateway import config as gateway_config
from retrysafe.gateway.config import SETTINGS
from retrysafe.operate import migrate as migration
from retrysafe.operate import observed as observations
from retrysafe.operate import stats as statistics
from retrysafe.operate.opened import opened
from retrysafe.operate.purge import purge as purge_all
from retrysafe.operation.recovery import Report
from retrysafe.protocol.duration import milliseconds
from retrysafe.protocol.transitions import ANSWER_DAYS_KEPT, TakeStats
from retrysafe.server.named import named


@main.command()
@settings_options(*STORE)
@AS_JSON
@click.pass_context
def purge(ctx: click.Context, /, *, as_json: bool, **_: Any) -> None:
    """Expire and forget the records whose time has come.

    In batches, until none is left.
    """
    with opened(*gateway_config.build_store(settings_of(ctx))) as (store, _secret):
        done = purge_all(store, lambda now: show_progress(f"expired {now.expired}, forgotten {now.forgotten}"))
    end_progress()
    if as_json:
        click.echo(json.dumps({"expired": done.expired, "forgotten": done.forgotten}))
    else:
        click.echo(f"expired {done.expired}, forgotten {done.forgotten}")


@main.command()
@settings_options(*STORE)
@option("--days", type=click.IntRange(1, ANSWER_DAYS_KEPT), default=7, show_default=True, help="Of how many days.")
@click.option("--observed", is_flag=True, help='What mode="observe" has counted, instead.')
@AS_JSON
@click.pass_context
def stats(ctx: click.Context, /, *, days: int, observed: bool, as_json: bool, **_: Any) -> None:
    """Show what is in a store, and how much was replayed.

    Records are counted by state and route, and answers by route. With --observed: what protection would have saved,
    where it is not switched on yet.
    """
    with opened(*gateway_config.build_store(settings_of(ctx))) as (store, _secret):
        if observed:
            seen = observations.take_observed(store, days)
            document, lines = observations.document(seen), observations.lines(seen, days)
        else:
            taken = store.perform(TakeStats(days))
            document, lines = statistics.document(taken), statistics.lines(taken, days)
    for line in [json.dumps(document)] if as_json else lines:
        click.echo(line)


@main.command()
@settings_options(*STORE)
@click.option(
    "--print", "only_print", is_flag=True, help="Print the SQL of the missing migrations, and change nothing."
)
@click.pass_context
def migrate(ctx: click.Context, /, *, only_print: bool, **_: Any) -> None:
    """Bring the schema of a store up to date, after a deployment.

    That is: once no process of the last release uses it.
    """
    url, _secret = gateway_config.build_store(settings_of(ctx))
    if only_print:
        for line in migration.script(migration.missing(url)):
            click.echo(line)
        return
    for migrated in (missing := migration.migrate(url)):
        click.echo(f"gone through {migrated}")
    if not missing:
        click.echo("the schema is up to date")


@main.command()
@click.argument("application", metavar="[MODULE:APP]", required=False)
@settings_options(*SETTINGS, keys=True)
@POLICY
@option("--every", default="30s", show_default=True, metavar="TEXT", help="About how long to wait between two passes.")
@click.option("--once", is_flag=True, help="One pass, and an exit code that says whether something is left to look at.")
@AS_JSON
@click.pass_context
def recover(ctx: click.Context, /, application: str | None, *, every: str, once: bool, as_json: bool, **_: Any) -> None:
    """Send abandoned requests again, ask about unknown outcomes.

    Of the application MODULE:APP, or of the gateway that the settings describe.
    """
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
