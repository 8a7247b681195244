"""Find what of an API a retry could do twice, without sending it a request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from retrysafe.cli.base import AS_JSON, main, option
from retrysafe.cli.proving import FILE, MANY
from retrysafe.gateway.settings_file import find as find_settings

_COLOURS = {"error": "red", "warning": "yellow", "": None}


@main.command()
@click.argument("target", metavar="[TARGET]", required=False)
@option("--django", of="AUDIT_", metavar="SETTINGS", help="Settings module of a Django project, in place of TARGET.")
@option("--gateway", of="AUDIT_", type=FILE, metavar="FILE", help="Settings of the gateway in front of the API.")
@option("--factory", of="AUDIT_", is_flag=True, help="TARGET makes the application when it is called.")
@option("--retry-window", of="AUDIT_", metavar="DURATION", help="How long clients go on trying, like 72h.")
@option("--client", of="AUDIT_", **MANY, metavar="PROFILE", help="Profile of clients that call; may be repeated.")
@option("--method", of="AUDIT_", **MANY, metavar="METHOD", help="Audit it besides POST and PATCH; may be repeated.")
@option("--ignore", of="AUDIT_", **MANY, metavar="ID[:ROUTE]", help="Silence a rule, or it at a route; * is anything.")
@option("--baseline", of="AUDIT_", metavar="FILE", help="Silence the findings that it has.")
@click.option("--write-baseline", is_flag=True, help="Write what is found to the baseline, and end with 0.")
@option(
    "--config", of="AUDIT_", type=FILE, metavar="FILE", help="Settings file; its table audit has these options too."
)
@option("--sarif-report", of="AUDIT_", metavar="FILE", help="For code scanning.")
@option("--annotations", of="AUDIT_", is_flag=True, help="Commands that mark the lines in a code review on GitHub.")
@click.option("--fix", is_flag=True, help="Print what to add, and where.")
@click.option("--list", "only_list", is_flag=True, help="List the rules, and read nothing.")
@AS_JSON
@click.pass_context
def audit(ctx: click.Context, /, **options: Any) -> None:
    """Find what of an API a retry could do twice.

    TARGET is MODULE:APP, an ASGI or WSGI application, or an OpenAPI document, a file or a URL. Without one it is the
    Django project of DJANGO_SETTINGS_MODULE, or of manage.py in this folder. It is read, and sent no request.
    """
    from retrysafe.audit import command  # noqa: PLC0415 - for this command alone
    from retrysafe.cli.audited import audited  # noqa: PLC0415 - as above

    if options["only_list"]:
        for line in command.catalogue():
            click.echo(line)
        return
    file = find_settings(options["config"], Path.cwd())
    ctx.exit(command.run(options, file, lambda: audited(options), _say, _warn))


def _say(line: str, severity: str) -> None:
    click.secho(line, fg=_COLOURS[severity])


def _warn(line: str) -> None:
    click.echo(f"retrysafe: {line}", err=True)
