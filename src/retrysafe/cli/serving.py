"""Serve as a gateway, show its settings, and what clients may rely on."""

from __future__ import annotations

import json
from typing import Any

import click

from retrysafe.cli.base import AS_JSON, POLICY, main, settings_of, settings_options
from retrysafe.gateway import config as gateway_config
from retrysafe.gateway.config import SETTINGS
from retrysafe.gateway.published import build_published
from retrysafe.protocol.published_page import page
from retrysafe.server.named import named


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
@AS_JSON
@click.pass_context
def show(ctx: click.Context, /, *, as_json: bool, **_: Any) -> None:
    """Check every setting of the gateway, and show where it was set."""
    settings = settings_of(ctx)
    gateway_config.build(settings)
    rows = gateway_config.effective(settings)
    if as_json:
        click.echo(json.dumps([{"setting": name, "value": value, "origin": origin} for name, value, origin in rows]))
    else:
        for name, value, origin in rows:
            click.echo(f"{name} = {json.dumps(value)}  # {origin}")


@main.command()
@click.argument("application", metavar="[MODULE:APP]", required=False)
@settings_options(*(setting for setting in SETTINGS if setting.name in ("scope", "mode", "status_path")))
@POLICY
@AS_JSON
@click.pass_context
def contract(ctx: click.Context, /, application: str | None, *, as_json: bool, **_: Any) -> None:
    """Print what clients may rely on.

    As a page for them: of the application MODULE:APP, or of the gateway that the settings describe.
    """
    if application is None:
        published = build_published(settings_of(ctx))
    else:
        from retrysafe.operate.published import published_by  # noqa: PLC0415 - a door, for this command alone

        published = published_by(named(application), application)
    document = published.document()
    click.echo(json.dumps(document, indent=2) if as_json else page(document), nl=as_json)
