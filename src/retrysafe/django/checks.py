"""`manage.py check`: what is wrong with the settings, and what the audit finds in the project."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004 - Django's names

from retrysafe.audit.audited import audit
from retrysafe.audit.rule import Asked, Finding
from retrysafe.audit.silence import hear
from retrysafe.django.settings import configuration
from retrysafe.django.surface import surface
from retrysafe.errors import ConfigurationError

# What keeps a project from working at all. Every other rule is a warning of its own number: AUD-01 is W001.
_ERRORS = {"AUD-14": "E003"}


@register("retrysafe")
def check(**_: Any) -> list[CheckMessage]:
    """All checks."""
    try:
        configuration()
        found = surface("settings")
    except ConfigurationError as error:
        return [Error(fault, id="retrysafe.E001") for fault in error.faults]
    missing = [] if found.door else [_no_middleware()]
    return [*missing, *map(_message, hear(audit(found, Asked()), (), frozenset()).findings)]


def _no_middleware() -> CheckMessage:
    return Error(
        "retrysafe.django is installed, and its middleware is not in MIDDLEWARE: nothing is protected",
        hint='Add "retrysafe.django.IdempotencyMiddleware" behind what authenticates.',
        id="retrysafe.E002",
    )


def _message(finding: Finding) -> CheckMessage:
    found, rule = finding.found, finding.rule
    number = _ERRORS.get(rule.id, f"W{int(rule.id.partition('-')[2]):03}")
    kind = Error if number.startswith("E") else Warning
    text = f"{found.where} {found.seen}: {rule.why[0].lower()}{rule.why[1:]}"
    hint = f"{found.todo[0].upper()}{found.todo[1:]}, or silence this check ({rule.id})."
    return kind(text, hint=hint, obj=str(found.place) if found.place else None, id=f"retrysafe.{number}")
