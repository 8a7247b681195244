"""What an application promises to its clients, read from it without serving it or opening its store."""

from __future__ import annotations

from typing import Any

from retrysafe.asgi import IdempotencyMiddleware as AsgiDoor
from retrysafe.errors import ConfigurationError
from retrysafe.protocol.published import Published
from retrysafe.server.noted import noted_door_of
from retrysafe.server.routed import door_of
from retrysafe.wsgi import IdempotencyMiddleware

_DEPTH_MAX = 32  # of layers of middleware


def published_by(application: Any, name: str) -> Published:
    """What the door of an application promises.

    Args:
        application: what a server runs: of Starlette, FastAPI, Litestar or Flask, or a door around any other.
        name: for people.

    Raises:
        ConfigurationError: it has no door that can be found.
    """
    door = door_in(application) or noted_door_of(application)
    if door is None:
        fault = f"{name} has no door that can be found; name the application with its middleware, as a server runs it"
        raise ConfigurationError([fault])
    return door.published()


def door_in(application: Any) -> AsgiDoor | IdempotencyMiddleware | None:
    """The door of an application, whatever protocol it speaks; None if it has none that can be found.

    Raises:
        ConfigurationError: something is wrong with a marker.
    """
    return door_of(application) or _wsgi_door_of(application)


def _wsgi_door_of(application: Any) -> IdempotencyMiddleware | None:
    """The door among the layers around a WSGI application; one of Flask has them inside of itself."""
    for _ in range(_DEPTH_MAX):
        if application is None or isinstance(application, IdempotencyMiddleware):
            return application
        application = getattr(application, "wsgi_app", None) or getattr(application, "app", None)
    return None
