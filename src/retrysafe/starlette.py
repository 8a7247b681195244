"""Middleware for Starlette: it asks the router what holds for a request, before the handler runs."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator, Sequence
from types import MethodType
from typing import Any

from starlette.endpoints import HTTPEndpoint
from starlette.routing import BaseRoute, Match

from retrysafe.errors import ConfigurationError
from retrysafe.server.endpoint import Endpoint
from retrysafe.server.marker import idempotent
from retrysafe.server.routed import RoutedMiddleware, Router
from retrysafe.server.scope import Connection

__all__ = ["IdempotencyMiddleware", "idempotent"]

# Of requests that were routed once; a path that a client makes up is not kept for ever, and a long one never.
_ROUTED_MAX = 1_024
_PATH_CHARACTERS_MAX = 256
_DEPTH_MAX = 16
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class IdempotencyMiddleware(RoutedMiddleware):
    """Makes the handlers of a Starlette application safe to retry.

    As `retrysafe.asgi.IdempotencyMiddleware`, with the same settings, and it knows the application's routes: handlers
    may be marked with `@idempotent`, also in mounted applications. What the router refuses (404, 405, the redirect for
    a slash) passes and leaves no record. Neither does what is refused before a marked handler is reached.

    Args:
        app: the application, or what stands between this layer and its router.
        settings: those of `retrysafe.asgi.IdempotencyMiddleware`.

    Raises:
        ConfigurationError: with everything that is wrong; with a marker, when the application starts.
    """

    def _find_router(self, connection: Connection) -> Router:
        behind = routes_behind(self.app)
        if behind is None:
            behind = getattr(connection.get("app"), "routes", None)
        if behind is None:
            fault = (
                "retrysafe.starlette finds no router: put the middleware into the application's list of middleware, "
                "or around the application; for anything else there is retrysafe.asgi"
            )
            raise ConfigurationError([fault])
        return StarletteRouter(behind)


def routes_behind(application: Any) -> list[BaseRoute] | None:
    """The routes of the router behind layers of middleware that keep what they are around as `app`."""
    for _ in range(_DEPTH_MAX):
        if isinstance(application, MethodType):  # a router hands itself to its own middleware as one of its methods
            application = application.__self__
        found = getattr(application, "routes", None)
        if isinstance(found, list):
            return found
        application = getattr(application, "app", None)
    return None


class StarletteRouter:
    """The routes of an application of Starlette, or of what is built on it.

    Args:
        routes: as the application has them; it may add more.
    """

    def __init__(self, routes: list[BaseRoute]) -> None:
        self._routes = routes
        self._routed: dict[tuple[str, str, str], Endpoint] = {}

    def endpoints(self) -> Iterator[Endpoint]:
        """All handlers that it knows."""
        return _endpoints(self._routes, "")

    def match(self, connection: Connection) -> Endpoint | None:
        """The handler that a request would be routed to; None if there is none."""
        key = (connection["method"], connection.get("root_path", ""), connection["path"])
        if key in self._routed:
            return self._routed[key]
        hosts: list[Any] = []
        found = _match(self._routes, connection, "", hosts)
        if found is not None and not hosts and len(key[1]) + len(key[2]) <= _PATH_CHARACTERS_MAX:
            if len(self._routed) >= _ROUTED_MAX:
                self._routed.clear()
            self._routed[key] = found
        return found


def _match(routes: Sequence[BaseRoute], connection: Connection, prefix: str, hosts: list[Any]) -> Endpoint | None:
    """The handler for a request; into `hosts` goes each route that looked at more than the method and the path."""
    for route in _spread(routes):
        if hasattr(route, "host"):
            hosts.append(route)
        matched, found = route.matches(connection)
        if matched is Match.FULL:
            inner = getattr(route, "routes", None)
            if inner:
                return _match(inner, {**connection, **found}, prefix + _place(route), hosts)
            endpoint = _endpoint(route, prefix)
            return endpoint if endpoint.methods is None or connection["method"] in endpoint.methods else None
    return None


def _endpoints(routes: Sequence[BaseRoute], prefix: str) -> Iterator[Endpoint]:
    for route in _spread(routes):
        if inner := getattr(route, "routes", None):
            yield from _endpoints(inner, prefix + _place(route))
        elif hasattr(route, "methods"):
            yield _endpoint(route, prefix)


def _place(route: Any) -> str:
    """Where a router is: the path that it is mounted at, or the name of its host."""
    return getattr(route, "path", None) or getattr(route, "host", None) or ""


def _endpoint(route: Any, prefix: str) -> Endpoint:
    methods = getattr(route, "methods", None)
    handler = getattr(route, "endpoint", None)
    if methods is None and inspect.isclass(handler) and issubclass(handler, HTTPEndpoint):
        methods = {method for method in _METHODS if hasattr(handler, method.lower())}  # others it refuses by itself
    return Endpoint(prefix + getattr(route, "path_format", ""), frozenset(methods) if methods else None, handler)


def _spread(routes: Sequence[BaseRoute]) -> Iterable[Any]:
    """The routes, and in the place of a router that FastAPI includes, those of that router under its prefix."""
    routing = sys.modules.get("fastapi.routing")
    spread = getattr(routing, "iter_route_contexts", None)
    return routes if spread is None else spread(routes)
