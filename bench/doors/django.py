"""Django without a database of its own, for threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import django
from django.conf import settings as project
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

from bench.doors.handler import JSON, PATHS, Handler, settings

DOOR = "retrysafe.django.IdempotencyMiddleware"
_HANDLER = Handler()


def _charge(request: Any) -> HttpResponse:
    _ = request.body
    return HttpResponse(_HANDLER.charge(request.path), status=201, content_type=JSON)


def _runs(_: Any) -> HttpResponse:
    return HttpResponse(_HANDLER.runs)


urlpatterns = [*(path(one.removeprefix("/"), _charge) for one in PATHS), path("runs", _runs)]


def set_up(urls: str, middleware: Sequence[str]) -> None:
    """Make a project of a module with paths.

    Args:
        urls: the module.
        middleware: of Django's list.
    """
    door = {name.upper(): value for name, value in settings().items()} if middleware else {}
    project.configure(
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="of a benchmark",  # noqa: S106 - it signs nothing
        ROOT_URLCONF=urls,
        MIDDLEWARE=list(middleware),
        IDEMPOTENCY=door,
        LOGGING_CONFIG=None,
    )
    django.setup()


def bare() -> Any:
    """The project alone."""
    set_up(__name__, [])
    return get_wsgi_application()


def protected() -> Any:
    """With its middleware."""
    set_up(__name__, [DOOR])
    return get_wsgi_application()
