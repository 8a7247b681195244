"""An application object as a surface: of any framework that we know, or only the door around it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MethodType
from typing import Any, Protocol

from retrysafe.asgi import IdempotencyMiddleware as AsgiDoor
from retrysafe.audit.code import evidence_of, shown_file
from retrysafe.audit.documents import documented_in, words_in
from retrysafe.audit.surface import UNSAFE, Door, Evidence, Kind, Operation, Place, Surface
from retrysafe.errors import ConfigurationError
from retrysafe.operate.published import door_in
from retrysafe.protocol.policy import METHODS_NEVER
from retrysafe.server.endpoint import Endpoint
from retrysafe.server.marker import Marker, marker_of
from retrysafe.server.routed import RoutedMiddleware
from retrysafe.server.routes import ANY, UNNAMED, Route
from retrysafe.wsgi import IdempotencyMiddleware as WsgiDoor

_DEPTH_MAX = 32  # of layers of middleware


class Router(Protocol):
    """The router of a framework."""

    def endpoints(self) -> Iterable[Endpoint]:
        """All handlers that it knows."""


@dataclass(frozen=True, slots=True)
class _Framework:
    """An application of a framework.

    Attributes:
        kind: which.
        router: its routes.
        reaches: whether a request by this method to this path would come to a handler.
        document: makes its OpenAPI document; None if it has none.
        unseen: mounted applications whose routes cannot be read.
        doors: of mounted applications that have their own, and where these are.
    """

    kind: Kind
    router: Router
    reaches: Callable[[str, str], bool]
    document: Callable[[], Mapping[str, Any]] | None = None
    unseen: tuple[str, ...] = ()
    doors: tuple[tuple[str, AsgiDoor | WsgiDoor], ...] = ()


def surface_of(application: Any, target: str) -> Surface:
    """What an application has, read from it without serving it or opening its store.

    Args:
        application: what a server runs: of Starlette, FastAPI, Litestar or Flask, or a door around any other.
        target: `MODULE:APP`.

    Raises:
        ConfigurationError: it is neither an application whose routes can be read nor one with a door.
    """
    door, framework = door_in(application), _framework_of(application)
    place = file_of(target.partition(":")[0])
    shown = None if door is None else _door(door, place)
    if framework is not None:
        document, unseen = _document(framework)
        operations = tuple(_operations(framework, door, document))
        return Surface(
            target, framework.kind, operations, shown, framework.reaches, document=document, unseen=unseen, file=place
        )
    if door is None or shown is None:
        fault = (
            f"{target} is of no framework whose routes can be read (Starlette, FastAPI, Litestar, Flask, Django), and "
            "has no door that can be found; name what a server runs, or an OpenAPI document of it"
        )
        raise ConfigurationError([fault])
    kind = Kind.WSGI if isinstance(door, WsgiDoor) else Kind.ASGI
    return Surface(target, kind, tuple(_of_table(door)), shown, file=place)


def file_of(module: str) -> Place | None:
    """The file of a module that was imported; None if it has none."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return Place(shown_file(file)) if file else None


def _document(framework: _Framework) -> tuple[Mapping[str, Any] | None, tuple[str, ...]]:
    """The document of an application, and what cannot be seen."""
    if framework.document is None:
        return None, framework.unseen
    try:
        return framework.document(), framework.unseen
    except Exception as error:  # noqa: BLE001 - whatever somebody's models raise; the routes are there all the same
        return None, (*framework.unseen, f"its OpenAPI document, which cannot be made: {type(error).__name__}")


def _door(door: AsgiDoor | WsgiDoor, place: Place | None) -> Door:
    routes = door.routes_table
    is_routed = isinstance(door, RoutedMiddleware) or _is_flask(door)
    return Door(door.published().scope, door.store.name, routes.policy_of(ANY), routes.table, place, is_routed)


def _is_flask(door: AsgiDoor | WsgiDoor | None) -> bool:
    return isinstance(door, WsgiDoor) and type(door) is not WsgiDoor


# --- operations -----------------------------------------------------------------------------------


def _operations(
    framework: _Framework, door: AsgiDoor | WsgiDoor | None, document: Mapping[str, Any] | None
) -> Iterator[Operation]:
    for endpoint in framework.router.endpoints():
        prefix, its_door = ("", door) if door else _door_inside(framework, endpoint.path)
        inside = replace(endpoint, path=endpoint.path.removeprefix(prefix))  # as a mounted application knows it
        for method in methods_of(endpoint.methods):
            operation = replace(_operation(method, inside, its_door), path=endpoint.path)
            words = operation.evidence.words | words_in(document, method, endpoint.path)
            yield replace(
                operation,
                documented=documented_in(document, method, endpoint.path, operation.policy),
                evidence=replace(operation.evidence, words=words),
            )


def _door_inside(framework: _Framework, path: str) -> tuple[str, AsgiDoor | WsgiDoor | None]:
    """The door of the application that is mounted at a path, and where that is."""
    found = ((prefix, door) for prefix, door in framework.doors if path.startswith(f"{prefix}/"))
    return next(found, ("", None))


def methods_of(methods: frozenset[str] | None) -> list[str]:
    """Of the methods of a handler those that could do something; of one that takes every method, POST."""
    if methods is None:
        return ["POST"]
    return [method for method in UNSAFE if method in methods] + sorted(methods - set(UNSAFE) - METHODS_NEVER)


def _operation(method: str, endpoint: Endpoint, door: AsgiDoor | WsgiDoor | None) -> Operation:
    """A method of a handler. The table goes before a mark at every door but that of Flask."""
    handler = endpoint.handler if endpoint.function is None else endpoint.function
    marker = marker_of(endpoint.handler, method)
    marker = marker_of(handler, method) if marker is None else marker  # on a method of the class behind a view
    route = door.route_for(method, endpoint) if door else None
    named = door.routes_table.entry_for(method, endpoint.path) if door else UNNAMED
    is_named = named is not UNNAMED and not (marker is not None and _is_flask(door))
    return Operation(
        method,
        endpoint.path,
        policy=None if door is None or route is None or door.observes(route) else route.policy,
        declined=named is None if is_named else marker is not None and _is_out(marker, method),
        entry=named.entry if is_named and isinstance(named, Route) else "",
        options=None if marker is None else dict(marker),
        evidence=Evidence() if handler is None else evidence_of(handler, method),
        handler=handler,
    )


def _is_out(marker: Marker, method: str) -> bool:
    return not marker.enrolled or method not in marker.get("methods", (method,))


def _of_table(door: AsgiDoor | WsgiDoor) -> Iterator[Operation]:
    """Of an application whose routes nobody can read, what the table names."""
    for entry, policy in door.routes_table.table.items():
        method, _, path = entry.partition(" ")
        yield Operation(method, path, policy, declined=policy is None, entry=entry)


# --- frameworks -----------------------------------------------------------------------------------


def _framework_of(application: Any) -> _Framework | None:
    for layer in _layers(application):
        for name, make in _FRAMEWORKS.items():
            if any(made.__module__.partition(".")[0] == name for made in inspect.getmro(type(layer))):
                framework = make(layer)
                if framework is not None:
                    return framework
    return None


def _layers(application: Any) -> Iterator[Any]:
    """The application, and what its layers of middleware are around."""
    for _ in range(_DEPTH_MAX):
        if application is None:
            return
        if isinstance(application, MethodType):  # a router hands itself to its own middleware as one of its methods
            application = application.__self__
        yield application
        application = getattr(application, "app", None)


def _starlette(application: Any) -> _Framework | None:
    from retrysafe.starlette import StarletteRouter  # noqa: PLC0415 - the framework is there, as this is one of it

    routes = getattr(application, "routes", None)
    if not isinstance(routes, list):
        return None
    router = StarletteRouter(routes)

    def reaches(method: str, path: str) -> bool:
        connection = {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}
        return router.match(connection) is not None

    is_fastapi = any(made.__module__.partition(".")[0] == "fastapi" for made in inspect.getmro(type(application)))
    document = application.openapi if is_fastapi and application.openapi_url else None
    kind = Kind.FASTAPI if is_fastapi else Kind.STARLETTE
    mounted = list(_mounted(routes, ""))
    closed = [path for path, app in mounted if not getattr(app, "routes", None) and type(app).__name__ != "StaticFiles"]
    unseen = [f"{path}: an application is mounted there whose routes cannot be read" for path in closed]
    doors = [(path, inner) for path, app in mounted if (inner := door_in(app)) is not None]
    return _Framework(kind, router, reaches, document, tuple(unseen), tuple(doors))


def _mounted(routes: Iterable[Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """What is mounted, and where; the innermost first."""
    for route in routes:
        app = getattr(route, "app", None)
        if app is not None and not hasattr(route, "endpoint"):
            path = prefix + getattr(route, "path", "")
            yield from _mounted(getattr(route, "routes", None) or (), path)
            yield path, app


def _litestar(application: Any) -> _Framework | None:
    from retrysafe.litestar import LitestarRouter  # noqa: PLC0415 - as above

    if not hasattr(application, "asgi_router"):
        return None
    door = door_in(application)
    router = LitestarRouter(application, getattr(door, "excluded", lambda *_: False))

    def reaches(method: str, path: str) -> bool:
        return router.match({"type": "http", "method": method, "path": path}) is not None

    def document() -> Mapping[str, Any]:
        made: Mapping[str, Any] = application.openapi_schema.to_schema()
        return made

    return _Framework(Kind.LITESTAR, router, reaches, document if application.openapi_config else None)


def _flask(application: Any) -> _Framework | None:
    from retrysafe.flask import FlaskRouter  # noqa: PLC0415 - as above

    if not hasattr(application, "url_map"):
        return None
    router = FlaskRouter(application)
    return _Framework(Kind.FLASK, router, router.reaches)


_FRAMEWORKS: Mapping[str, Callable[[Any], _Framework | None]] = {
    "litestar": _litestar,
    "starlette": _starlette,
    "flask": _flask,
}
