"""Django's ASGI application with a beginning and an end, which it has not by itself."""

from __future__ import annotations

from typing import Any

from django.core.asgi import get_asgi_application as django_application

from retrysafe.django.middleware import drain_all, open_all
from retrysafe.server.handling import Application, Receive, Send
from retrysafe.server.lifespan import Lifespan


def get_asgi_application() -> Application:
    """As Django's; a server that speaks lifespan opens the store with it, and waits for running views at the end.

    Without it, a view whose client has left is cut off when the process ends, and its outcome is unknown.
    """
    inner: Application = django_application()

    async def application(scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await Lifespan(inner, open_all, drain_all).run(scope, receive, send)
        else:
            await inner(scope, receive, send)

    return application
