"""Stored requests sent again through a WSGI door, in the name of their account; each on a thread."""

from __future__ import annotations

import asyncio
import inspect
import io
import logging
import os
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from retrysafe.drive.sync import Driver
from retrysafe.errors import CallerError
from retrysafe.observe import name_of
from retrysafe.operation.handle import Begin
from retrysafe.operation.recovery import Fared, Means
from retrysafe.protocol.flow import Terms, resume
from retrysafe.protocol.policy import Policy
from retrysafe.protocol.stored_request import StoredRequest
from retrysafe.protocol.transitions import Listed, TakeOverIfLapsed
from retrysafe.server.environ import Environ, Resolver, path_of
from retrysafe.server.redrive import FARED, Identity, checked_identity, stored_headers
from retrysafe.server.routes import Route, Routes
from retrysafe.server.wsgi_exchange import Application, Exchange

_log = logging.getLogger("retrysafe")

Reauthenticate = Callable[[str], Identity | None]


class Redrive:
    """Sends stored requests again through one door; see `retrysafe.server.redrive.Redrive`, whose WSGI side this is.

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
        self._application = application
        self._routes = routes
        self._resolver = resolver
        self._driver = driver
        self._begin = begin
        self._reauthenticate = reauthenticate
        self._means = means

    @property
    def can_redrive(self) -> bool:
        """There is somebody to say in whose name."""
        return self._reauthenticate is not None

    def policy(self, route: str) -> Policy | None:
        """Of the records of a route; None if the door has no such route."""
        named = self._routes.named(route)
        return None if named is None else named.policy

    async def redrive(self, listed: Listed, stored: StoredRequest) -> Fared:
        """Send a stored request again, as a retry under the same key, in the name of its account."""
        return await asyncio.to_thread(self._redrive, listed, stored)

    def _redrive(self, listed: Listed, stored: StoredRequest) -> Fared:
        route = self._routes.find(stored.head.method, path_of({"PATH_INFO": _path_info(stored)}))
        if route is None or route.entry != listed.record.route or self._reauthenticate is None:
            return Fared.NOT_HERE
        try:
            identity = checked_identity(_plain(self._reauthenticate(stored.scope)))
            if identity is None:
                return Fared.GONE
            terms = self._terms(route)
            exchange = self._exchange(_environ(stored, identity), route, terms)
        except Exception:  # noqa: BLE001 - the application's own function, whose failure is for the log
            _log.exception("reauthenticate= failed for record %s; it is left alone", name_of(listed.record_id))
            return Fared.FAILED
        return self._drive(listed, stored, exchange, terms)

    def _terms(self, route: Route) -> Terms:
        means = self._means
        return Terms(
            route.policy,
            means.namespace,
            means.secret,
            os.urandom(16),
            route=route.entry,
            encryption=means.encryption,
        )

    def _exchange(self, environ: Environ, route: Route, terms: Terms) -> Exchange:
        return Exchange(self._application, environ, _unheard, route, terms, self._begin, self._resolver, None)

    def _drive(self, listed: Listed, stored: StoredRequest, exchange: Exchange, terms: Terms) -> Fared:
        record, policy = listed.record, terms.policy
        claiming = TakeOverIfLapsed(
            listed.record_id, record.token, terms.token, policy.lease_ms, policy.unknown_retention_ms
        )
        try:
            pieces = exchange.drive(self._driver, resume(stored, record, claiming, terms))
            try:
                for _ in pieces:
                    pass
            finally:
                getattr(pieces, "close", list)()
        except (Exception, SystemExit):  # noqa: BLE001 - of its scope, or of its handler, which is to end no process here
            _log.exception("record %s: its request failed while it was sent again", name_of(listed.record_id))
        return FARED.get(exchange.ending, Fared.FAILED)


def _plain(given: object) -> object:
    if not inspect.iscoroutine(given):
        return given
    given.close()
    raise CallerError("reauthenticate= is a coroutine function, and a WSGI door has no event loop; give a plain one")


def _unheard(*_: object) -> Callable[[bytes], object]:
    """The `start_response` of a request whose answer nobody waits for."""
    return lambda _: None


def _path_info(stored: StoredRequest) -> str:
    """The path within what the application is mounted at, byte for byte, as WSGI spells it."""
    return unquote_to_bytes(stored.head.path).decode("latin-1").removeprefix(stored.root)


def _environ(stored: StoredRequest, identity: Identity) -> Environ:
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
