"""Django without a database of its own, for an event loop."""

from __future__ import annotations

from typing import Any

from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path

from bench.bare import Message, Receive, Send, live
from bench.doors.django import DOOR, set_up
from bench.doors.handler import JSON, PATHS, Handler
from retrysafe.django.asgi import get_asgi_application as get_protected_application

_HANDLER = Handler()


async def _charge(request: Any) -> HttpResponse:
    _ = request.body
    return HttpResponse(await _HANDLER.charge_async(request.path), status=201, content_type=JSON)


async def _runs(_: Any) -> HttpResponse:
    return HttpResponse(_HANDLER.runs)


urlpatterns = [*(path(one.removeprefix("/"), _charge) for one in PATHS), path("runs", _runs)]


def bare() -> Any:
    """The project alone."""
    set_up(__name__, [])
    application = get_asgi_application()

    async def serve(scope: Message, receive: Receive, send: Send) -> None:
        """Django itself knows no lifespan."""
        await (live(receive, send) if scope["type"] == "lifespan" else application(scope, receive, send))

    return serve


def protected() -> Any:
    """With its middleware, and the lifespan that it needs."""
    set_up(__name__, [DOOR])
    return get_protected_application()
