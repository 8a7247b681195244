"""Stored requests sent again through a WSGI door, each on a thread."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from retrysafe.drive.sync import Driver
from retrysafe.errors import CallerError
from retrysafe.operation.handle import Begin
from retrysafe.operation.recovery import Means
from retrysafe.protocol.answers import Answer
from retrysafe.protocol.effects import Flow
from retrysafe.protocol.flow import Terms
from retrysafe.protocol.stored_request import StoredRequest
from retrysafe.server.environ import Environ, Resolver, path_of
from retrysafe.server.redrive import Identity, Reauthenticate, Redrive, stored_headers
from retrysafe.server.routes import Route, Routes
from retrysafe.server.wsgi_exchange import Application, Exchange


class WsgiRedrive(Redrive):
    """Through one WSGI door.

    Args:
        application: the handler.
        routes: of the door.
        resolver: of the door's scope.
        driver: of the door.
        begin: as for requests of clients.
        reauthenticate: from an account to an identity.
        means: of the door.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what a door consists of
        self,
        application: Application,
        routes: Routes,
        resolver: Resolver,
        driver: Driver,
        begin: Begin,
        reauthenticate: Reauthenticate | None,
        means: Means,
    ) -> None:
        super().__init__(routes.named, reauthenticate, means)
        self._application = application
        self._routes = routes
        self._resolver = resolver
        self._driver = driver
        self._begin = begin

    def _route(self, stored: StoredRequest) -> Route | None:
        return self._routes.find(stored.head.method, path_of({"PATH_INFO": _path_info(stored)}))

    def _request(self, stored: StoredRequest, identity: Identity, route: Route, terms: Terms) -> _Unheard:
        exchange = Exchange(
            self._application,
            environ_of(stored, identity),
            _unheard,
            route,
            terms,
            self._begin,
            self._resolver,
            None,
        )
        return _Unheard(exchange, self._driver)


class _Unheard:
    """A request whose answer nobody waits for."""

    def __init__(self, exchange: Exchange, driver: Driver) -> None:
        self._exchange = exchange
        self._driver = driver

    @property
    def ending(self) -> str:
        """How it ended."""
        return self._exchange.ending

    async def drive(self, work: Flow[Answer]) -> None:
        """Drive it to its end, on a thread."""
        await asyncio.to_thread(to_its_end, self._drive, work)

    def _drive(self, work: Flow[Answer]) -> None:
        pieces = self._exchange.drive(self._driver, work)
        try:
            for _ in pieces:
                pass
        finally:
            getattr(pieces, "close", list)()


def to_its_end(drive: Callable[[Flow[Answer]], None], work: Flow[Answer]) -> None:
    """Drive a request whose handler is to end no process here.

    Raises:
        CallerError: it would have.
    """
    try:
        drive(work)
    except SystemExit as leaving:
        raise CallerError("the handler called sys.exit()") from leaving


def _unheard(*_: object) -> Callable[[bytes], object]:
    """The `start_response` of a request whose answer nobody waits for."""
    return lambda _: None


def _path_info(stored: StoredRequest) -> str:
    """The path within what the application is mounted at, byte for byte, as WSGI spells it."""
    return unquote_to_bytes(stored.head.path).decode("latin-1").removeprefix(stored.root)


def environ_of(stored: StoredRequest, identity: Identity) -> Environ:
    """The WSGI environ of a stored request (PEP 3333)."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": stored.head.method,
        "SCRIPT_NAME": stored.root,
        "PATH_INFO": _path_info(stored),
        "QUERY_STRING": stored.head.query.decode("latin-1"),
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": stored.scheme,
        "wsgi.input": io.BytesIO(stored.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, line in stored_headers(stored, identity):
        entry = name.decode("latin-1").upper().replace("-", "_")
        plain = entry in ("CONTENT_TYPE", "CONTENT_LENGTH")
        environ[entry if plain else f"HTTP_{entry}"] = line.decode("latin-1")
    return {**environ, **identity.connection}
