"""A plugin for Litestar: its handlers are safe to retry, and its OpenAPI document says so."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import fields
from typing import Any, cast

from litestar import Litestar, asgi
from litestar.config.app import AppConfig
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.middleware import ASGIMiddleware
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import OpenAPI
from litestar.plugins import InitPlugin
from litestar.routes import HTTPRoute
from litestar.types import ASGIApp, Receive, Scope, Send
from litestar.utils import normalize_path

from retrysafe.errors import ConfigurationError
from retrysafe.protocol.policy import Policy
from retrysafe.server.endpoint import Endpoint
from retrysafe.server.marker import Marker, check_marker, idempotent
from retrysafe.server.routed import RoutedMiddleware, Router
from retrysafe.server.scope import Connection

__all__ = ["IdempotencyPlugin", "idempotent"]

OPT = "idempotency"

# In a connection scope, between Litestar's own layers of middleware: what comes after the door.
_NEXT = "retrysafe.next"


class IdempotencyPlugin(InitPlugin):
    """Makes the handlers of a Litestar application safe to retry: `Litestar(..., plugins=[IdempotencyPlugin(...)])`.

    What holds for a handler is said with `@idempotent` beneath its decorator, or in `opt={"idempotency": ...}` of it or
    of a layer above: a dictionary of options of `Policy`, a `Policy`, or False, which takes it out. Its layer of
    middleware is the innermost. What the router refuses never comes to it; what validation, guards or dependencies
    refuse before a handler with `@idempotent` leaves no record.

    Args:
        exclude: patterns of paths that are not protected, as in `ASGIMiddleware`.
        exclude_opt_key: handlers that have this in their `opt` are not protected.
        settings: those of `retrysafe.asgi.IdempotencyMiddleware`.

    Raises:
        ConfigurationError: with everything that is wrong; with a handler, when the application starts.
    """

    def __init__(
        self, *, exclude: str | tuple[str, ...] | None = None, exclude_opt_key: str | None = None, **settings: Any
    ) -> None:
        self.door = _Door(**settings)
        self._middleware = _Middleware(self.door, exclude, exclude_opt_key)
        self.door.excluded = self._middleware.excluded

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Take its place in an application."""
        app_config.middleware.append(self._middleware)
        app_config.lifespan.append(self._lifespan)
        if own_paths := self.door.own_paths:
            app_config.route_handlers.append(asgi(own_paths, copy_scope=True)(_never_reached))
        if app_config.openapi_config is not None:
            app_config.openapi_config = _Config.of(app_config.openapi_config, self.door)
        return app_config

    @asynccontextmanager
    async def _lifespan(self, app: Litestar) -> AsyncIterator[None]:
        """Entered last and left first: handlers that run on use what the application then takes down."""
        self.door.application = app
        self.door.learn_from(app)
        await self.door.open()
        try:
            yield
        finally:
            await self.door.close()


class _Middleware(ASGIMiddleware):
    scopes = (ScopeType.HTTP, ScopeType.ASGI)

    def __init__(self, door: _Door, exclude: str | tuple[str, ...] | None, exclude_opt_key: str | None) -> None:
        self._door = door
        self.exclude_path_pattern = exclude
        self.exclude_opt_key = exclude_opt_key

    def excluded(self, handler: Any, path: str) -> bool:
        """Whether requests to a handler pass by this layer."""
        patterns = self.exclude_path_pattern or ()
        by_path = any(re.search(it, path) for it in ((patterns,) if isinstance(patterns, str) else patterns))
        return by_path or bool(self.exclude_opt_key and handler.opt.get(self.exclude_opt_key))

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """One request."""
        connection = cast("Connection", scope)
        connection[_NEXT] = next_app
        await self._door(connection, cast("Any", receive), cast("Any", send))


class _Door(RoutedMiddleware):
    """The door between two layers of the application, and in front of all of it for what is sent again."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(self._go_on, **settings)
        self.application: Litestar | None = None
        self.excluded: Excluded = _nothing

    def _find_router(self, connection: Connection) -> Router:
        return LitestarRouter(connection.get("litestar_app") or connection["app"], self.excluded)

    async def _go_on(self, connection: Connection, receive: Any, send: Any) -> None:
        """What comes after the door."""
        after: Any = connection.get(_NEXT) or self.application
        await after(connection, receive, send)


async def _never_reached(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - as Litestar calls it
    """A handler for paths at which the door answers: without one, the router would refuse them."""
    raise AssertionError("the door answers at its own paths")


Excluded = Callable[[Any, str], bool]


def _nothing(_handler: Any, _path: str) -> bool:
    return False


class LitestarRouter:
    """The routes of a Litestar application.

    Args:
        app: it.
        excluded: whether a handler at a path is kept from the door; it is as one that is marked as not enrolled.
    """

    def __init__(self, app: Litestar, excluded: Excluded = _nothing) -> None:
        self._app = app
        self._excluded = excluded
        self._known: dict[int, tuple[Any, Any]] = {}

    def endpoints(self) -> Iterator[Endpoint]:
        """All handlers that it knows."""
        for route in self._app.routes:
            if isinstance(route, HTTPRoute):
                yield from (self._endpoint(handler, route.path_format) for handler in route.route_handlers)

    def match(self, connection: Connection) -> Endpoint | None:
        """The handler that the request was routed to, or would be."""
        if "route_handler" in connection:
            return self._endpoint(connection["route_handler"], connection["path_template"])
        try:  # a request that is sent again, and has not come by way of the router
            routed = self._app.asgi_router.handle_routing(
                path=normalize_path(connection["path"].removeprefix(connection.get("root_path", ""))),
                method=connection["method"],
            )
        except HTTPException:
            return None
        return self._endpoint(routed[1], routed[4])

    def _endpoint(self, handler: Any, path: str) -> Endpoint:
        methods = frozenset(map(str, handler.http_methods)) if isinstance(handler, HTTPRouteHandler) else None
        marked = _OUT if self._excluded(handler, path) else self._marked(handler)
        return Endpoint(path or "/", methods, marked, handler.fn)

    def _marked(self, handler: Any) -> Any:
        """What is marked: by `opt`, or else the function itself."""
        if id(handler) not in self._known:  # which is kept, so that the number stays its own
            said = handler.opt.get(OPT)
            self._known[id(handler)] = handler, handler.fn if said is None else _marker(said, str(handler))
        return self._known[id(handler)][1]


_OUT = Marker({}, enrolled=False)


def _marker(said: Any, where: str) -> Marker:
    """What `opt` says of a handler."""
    if isinstance(said, Policy):
        return Marker({it.name: getattr(said, it.name) for it in fields(said) if it.init})
    if isinstance(said, bool):
        return Marker({}, enrolled=said)
    if isinstance(said, dict):
        check_marker(said, f'opt["{OPT}"] of {where}')
        return Marker(said)
    fault = f'opt["{OPT}"] of {where} is {said!r}; it must be options of a policy, a Policy, True or False'
    raise ConfigurationError([fault])


class _Config(OpenAPIConfig):
    """Settings of a document that says what the door does."""

    door: _Door

    @classmethod
    def of(cls, plain: OpenAPIConfig, door: _Door) -> _Config:
        """The settings of an application, which have been through their constructor: it would warn of its defaults."""
        made = cls.__new__(cls)
        vars(made).update(vars(plain), door=door)
        return made

    def to_openapi_schema(self) -> OpenAPI:
        """The document, before its paths are there."""
        plain = super().to_openapi_schema()
        document = _Document(**{it.name: getattr(plain, it.name) for it in fields(plain)})
        document.door = self.door
        return document


class _Document(OpenAPI):
    door: _Door

    def to_schema(self) -> dict[str, Any]:
        """The document as JSON data."""
        return self.door.openapi(super().to_schema())
