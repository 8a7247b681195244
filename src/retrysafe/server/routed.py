"""The ASGI door of a framework: which policy a request falls under, by the framework's own router.

The router is asked before the handler runs, because a key has to be claimed before it. What it would not route is not
protected: there is nothing to protect, and a 404 or 405 leaves no record.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from retrysafe.errors import ConfigurationError
from retrysafe.protocol.openapi import enriched
from retrysafe.protocol.policy import METHODS_NEVER, Policy
from retrysafe.server.asgi import IdempotencyMiddleware
from retrysafe.server.endpoint import Endpoint
from retrysafe.server.handling import Receive, Send
from retrysafe.server.marker import marker_of, tells
from retrysafe.server.routes import ANY, UNNAMED, Route, Unnamed
from retrysafe.server.scope import Connection
from retrysafe.server.settings import Faults, check_completes_within

_DEPTH_MAX = 32  # of layers of middleware
_METHODS = ("POST", "PATCH", "PUT", "DELETE")


class Router(Protocol):
    """The router of an application."""

    def endpoints(self) -> Iterable[Endpoint]:
        """All handlers that it knows."""

    def match(self, connection: Connection) -> Endpoint | None:
        """The handler that a request would be routed to; None if there is none."""


class RoutedMiddleware(IdempotencyMiddleware):
    """The ASGI door, for a framework whose router can be asked. A subclass says how.

    A handler's own marker holds for it. The table `routes=` goes before the markers, and what neither names falls under
    `policy`, by the methods that it enrols.
    """

    _router: Router | None = None
    _known: dict[tuple[str, str, int, str], Route | None]

    @abstractmethod
    def _find_router(self, connection: Connection) -> Router:
        """The router behind this door; asked once, with the first connection."""

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if self._router is None:
            try:
                self._learn(self._find_router(scope))
            except ConfigurationError as error:
                if scope["type"] != "lifespan":
                    raise
                await receive()
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
        await super().__call__(scope, receive, send)

    def learn_from(self, application: Any) -> None:
        """Read what the handlers of an application are marked with, before it has served anything.

        Raises:
            ConfigurationError: with everything that is wrong with it.
        """
        if self._router is None:
            self._learn(self._find_router({"app": application}))

    def _learn(self, router: Router) -> None:
        self._known = {}
        faults = Faults()
        for endpoint in router.endpoints():
            faults.collect(partial(self._learn_endpoint, endpoint))
        faults.raise_any()
        check_completes_within(self._routes, self._store)
        self._router = router

    def _learn_endpoint(self, endpoint: Endpoint) -> None:
        methods = [method for method in sorted(endpoint.methods or _METHODS) if method not in METHODS_NEVER]
        for method in methods:
            if marker_of(endpoint.handler, method) is not None:
                self._route_of(method, endpoint)
        markers = [] if methods else [marker_of(endpoint.handler, method) for method in endpoint.methods or ()]
        if endpoint.methods and any(marker is not None and marker.enrolled for marker in markers):
            served = ", ".join(sorted(endpoint.methods))
            fault = (
                f"{endpoint.path}: its handler is marked with @idempotent and serves {served}, which never have keys"
            )
            raise ConfigurationError([f"{fault}; remove the marker"])

    def openapi(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """An OpenAPI document of the application, with what holds for keys on each operation that is enrolled (R81).

        Args:
            document: as JSON data; it is not changed.
        """
        return enriched(document, self.published(), self._policy_at)

    def _policy_at(self, method: str, path: str) -> Policy | None:
        """What holds for a handler, by its path as the router has it; None: it is not enrolled, or there is none."""
        for endpoint in self._router.endpoints() if self._router else ():
            if endpoint.path == path and (endpoint.methods is None or method in endpoint.methods):
                route = self.route_for(method, endpoint)
                return None if route is None or self.observes(route) else route.policy
        return None

    def route_for(self, method: str, endpoint: Endpoint) -> Route | None:
        """What requests to a handler fall under; None if it is not enrolled. The door has learnt of its application."""
        named = self._routes.entry_for(method, endpoint.path)
        return None if named is None else self._route_of(method, endpoint, named)

    def _find(self, method: str, path: str, connection: Connection) -> Route | None:
        named = self._routes.entry_for(method, path)
        if named is None or self._router is None:
            return None
        endpoint = self._router.match(connection)
        return None if endpoint is None else self._route_of(method, endpoint, named)

    def _route_of(self, method: str, endpoint: Endpoint, named: Route | Unnamed = UNNAMED) -> Route | None:
        """The route of a handler: by the table, else by its marker, else by default."""
        entry = named.entry if isinstance(named, Route) else ""  # many of the table may name one handler
        known = (method, endpoint.path, id(endpoint.handler), entry)
        if known not in self._known:
            self._known[known] = self._make_route(method, endpoint, named)
        return self._known[known]

    def _make_route(self, method: str, endpoint: Endpoint, named: Route | Unnamed) -> Route | None:
        is_telling = tells(endpoint.handler, method)
        if isinstance(named, Route):
            return replace(named, marked=is_telling)
        marker = marker_of(endpoint.handler, method)
        if marker is None:
            return self._routes.default_for(method)
        if method not in marker.get("methods", (method,)):
            return None
        entry = f"{method} {endpoint.path}"
        try:
            policy = marker.policy(self._routes.policy_of(ANY))
        except ConfigurationError as error:
            raise ConfigurationError([f"{entry}: {fault}" for fault in error.faults]) from None
        return self._routes.add(entry, policy, marked=is_telling)


def door_of(application: Any) -> IdempotencyMiddleware | None:
    """The door of an application, among its plugins or its layers of middleware; None if none can be found.

    A routed door has then read what the handlers are marked with.

    Args:
        application: of Starlette, FastAPI or Litestar, or a door around any other.

    Raises:
        ConfigurationError: something is wrong with a marker.
    """
    door = _search(application)
    if isinstance(door, RoutedMiddleware):
        door.learn_from(application)
    return door


def _search(application: Any) -> IdempotencyMiddleware | None:
    for plugin in getattr(application, "plugins", ()):
        if isinstance(door := getattr(plugin, "door", None), IdempotencyMiddleware):
            return door
    if hasattr(application, "build_middleware_stack"):
        application = getattr(application, "middleware_stack", None) or application.build_middleware_stack()
    for _ in range(_DEPTH_MAX):
        if application is None or isinstance(application, IdempotencyMiddleware):
            return application
        application = getattr(application, "app", None)
    return None
