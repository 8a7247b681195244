"""`manage.py check`: what is wrong with the settings, and which views a retry could do twice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004 - Django's names
from django.utils.module_loading import import_string

from retrysafe.django.enrolment import Enrolment, answers, class_of, mark_of, views
from retrysafe.django.middleware import IdempotencyMiddleware
from retrysafe.django.scope import user
from retrysafe.django.settings import Configuration, configuration
from retrysafe.errors import ConfigurationError
from retrysafe.protocol.policy import Policy
from retrysafe.server.marker import MarkedRoutes

# PUT and DELETE are repeatable by their definition; these are not.
_METHODS = ("POST", "PATCH")
_MONEY = re.compile(
    r"(?i)(?<![a-z])(pay(ment|out)?|charge|refund|transfer|order|invoice|checkout|purchase|withdraw(al)?|deposit|booking"
    r"|subscription)s?(?![a-z])"
)
_VARIABLE = re.compile(r"<[^>]*>")
_AUTHENTICATION = "django.contrib.auth.middleware.AuthenticationMiddleware"


@register("retrysafe")
def check(**_: Any) -> list[CheckMessage]:
    """All checks."""
    try:
        found = configuration()
    except ConfigurationError as error:
        return [Error(fault, id="retrysafe.E001") for fault in error.faults]
    return [*_order(found), *_views(found)]


def _order(found: Configuration) -> Iterator[CheckMessage]:
    """Where the middleware stands."""
    places = [number for number, name in enumerate(settings.MIDDLEWARE) if _is_ours(name)]
    if not places:
        yield Error(
            "retrysafe.django is installed, and its middleware is not in MIDDLEWARE: nothing is protected",
            hint='Add "retrysafe.django.IdempotencyMiddleware" behind what authenticates.',
            id="retrysafe.E002",
        )
    elif found.resolver is user and _AUTHENTICATION in settings.MIDDLEWARE[places[0] :]:
        yield Error(
            'AuthenticationMiddleware stands behind retrysafe\'s in MIDDLEWARE, and SCOPE is "user": every request '
            "with a key would be refused, because its user is not known yet",
            hint="Put it before.",
            id="retrysafe.E003",
        )


def _is_ours(name: str) -> bool:
    made = None if name.startswith("django.") else import_string(name)
    return isinstance(made, type) and issubclass(made, IdempotencyMiddleware)


# --- views ----------------------------------------------------------------------------------------


def _views(found: Configuration) -> Iterator[CheckMessage]:
    """Which views are not protected, and which let a request without a key do what costs money."""
    enrolment = Enrolment(found.routes, MarkedRoutes(found.policy, found.store))
    for pattern, view in views():
        for method in _METHODS:
            if _takes(view, method):
                policy = _policy(enrolment, found, pattern, view, method)
                yield from _of_view(f"{method} /{pattern}", view, policy)


def _of_view(entry: str, view: Any, policy: Policy | None) -> Iterator[CheckMessage]:
    if policy is None:
        yield Warning(
            f"{entry} is not protected: a retry does it again",
            hint="Mark the view with @idempotent, or silence this check.",
            obj=_name(view),
            id="retrysafe.W001",
        )
    elif not policy.required and _MONEY.search(entry):
        yield Warning(
            f"{entry} looks as if it moved money, and does not require a key: a client that sends none may do it twice",
            hint="Mark the view with @idempotent(required=True), or silence this check.",
            obj=_name(view),
            id="retrysafe.W002",
        )


def _policy(enrolment: Enrolment, found: Configuration, pattern: str, view: Any, method: str) -> Policy | None:
    options = mark_of(view, method)
    if options is not None:
        route = enrolment.marked.find(method, f"/{pattern}", options)
    else:
        route = found.routes.find(method, "/" + _VARIABLE.sub("1", pattern))
    return None if route is None else route.policy


def _takes(view: Any, method: str) -> bool:
    """Whether a view takes a method. Of a function nobody can tell: it is asked about if it is marked, or for POST."""
    if (getattr(view, "__module__", "") or "").startswith(("django.contrib.", "rest_framework.")):
        return False
    if class_of(view) is None:
        return method == "POST"
    return answers(view, method)


def _name(view: Any) -> str:
    shown = class_of(view) or view
    return f"{shown.__module__}.{shown.__qualname__}"
