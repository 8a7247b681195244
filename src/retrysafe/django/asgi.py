"""Django's ASGI application with a beginning and an end, which it has not by itself."""

from __future__ import annotations

from typing import Any

from django.core.asgi import get_asgi_application as django_application

from retrysafe.django.middleware import drain_all, serve_all
from retrysafe.server.handling import Application, Receive, Send
from retrysafe.server.lifespan import Lifespan


class LifespanApplication:
    """Django's application, and the lifespan around it.

    Args:
        app: Django's own.
    """

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] == "lifespan":
            await Lifespan(self.app, serve_all, drain_all).run(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def get_asgi_application() -> LifespanApplication:
    """As Django's; a server that speaks lifespan opens the store with it, and waits for running views at the end.

    Without it, a view whose client has left is cut off when the process ends, and its outcome is unknown.
    """
    return LifespanApplication(django_application())
