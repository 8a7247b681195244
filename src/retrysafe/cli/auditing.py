"""Find what of an API a retry could do twice, without sending it a request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from retrysafe.audit import command, targets
from retrysafe.audit.applications import surface_of
from retrysafe.audit.documents import is_document, surface_of_document
from retrysafe.audit.surface import Surface
from retrysafe.cli.base import AS_JSON, main, option
from retrysafe.cli.proving import FILE, MANY
from retrysafe.errors import ConfigurationError
from retrysafe.gateway import config as gateway_config
from retrysafe.gateway.published import build_published
from retrysafe.gateway.settings_file import SettingsFile
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
    if options["only_list"]:
        for line in command.catalogue():
            click.echo(line)
        return
    file = find_settings(options["config"], Path.cwd())
    ctx.exit(command.run(options, file, lambda: _surface(options), _say, _warn))


def _say(line: str, severity: str) -> None:
    click.secho(line, fg=_COLOURS[severity])


def _warn(line: str) -> None:
    click.echo(f"retrysafe: {line}", err=True)


def _surface(options: dict[str, Any]) -> Surface:
    """What the user names."""
    target = options["target"]
    settings = options["django"] if target else targets.django_settings(options["django"])
    if settings:
        if target:
            raise ConfigurationError([f"name either {target} or --django, not both"])
        return _of_django(settings)
    if not target:
        fault = "there is nothing to audit: give MODULE:APP, --django SETTINGS, or an OpenAPI document"
        raise ConfigurationError([f"{fault}; here is no manage.py, and DJANGO_SETTINGS_MODULE is not set"])
    if is_document(target):
        gateway = gateway_config.read({}, {}, SettingsFile(options["gateway"])) if options["gateway"] else None
        return surface_of_document(target, build_published(gateway) if gateway else None)
    application = targets.application_of(target, is_factory=options["factory"])
    return _of_django(None, target) if targets.is_django(application) else surface_of(application, target)


def _of_django(settings: str | None, target: str = "") -> Surface:
    try:
        from retrysafe.django.surface import surface_of_project  # noqa: PLC0415 - needs an extra
    except ModuleNotFoundError as missing:
        raise ConfigurationError([f'this needs {missing.name}: pip install "retrysafe[django]"']) from missing
    return surface_of_project(settings, target)
