"""Stored requests sent again through an ASGI door."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from retrysafe.drive.aio import Driver
from retrysafe.operation.handle import Begin
from retrysafe.operation.recovery import Means
from retrysafe.protocol.answers import Answer
from retrysafe.protocol.effects import Flow
from retrysafe.protocol.flow import Terms
from retrysafe.protocol.stored_request import StoredRequest
from retrysafe.server.capture import Message
from retrysafe.server.exchange import Exchange
from retrysafe.server.handling import Application
from retrysafe.server.redrive import Identity, Reauthenticate, Redrive, stored_headers, stored_path, stored_path_in
from retrysafe.server.routes import Route, Routes
from retrysafe.server.scope import Connection, Resolver

Find = Callable[[str, str, Connection], Route | None]


class AsgiRedrive(Redrive):
    """Through one ASGI door.

    Args:
        application: the handler.
        routes: of the door.
        find: from a method, a path and a connection scope to a route, as for requests of clients.
        resolver: of the door's scope.
        driver: of the door.
        begin: as for requests of clients.
        reauthenticate: from an account to an identity.
        means: of the door.
        surroundings: what a server, or a framework outside of the door, puts into every connection scope.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what a door consists of
        self,
        application: Application,
        routes: Routes,
        find: Find,
        resolver: Resolver,
        driver: Driver,
        begin: Begin,
        reauthenticate: Reauthenticate | None,
        means: Means,
        surroundings: Mapping[str, Any],
    ) -> None:
        super().__init__(routes.named, reauthenticate, means)
        self._application = application
        self._find = find
        self._resolver = resolver
        self._driver = driver
        self._begin = begin
        self._surroundings = surroundings

    def _route(self, stored: StoredRequest) -> Route | None:
        connection = {**self._surroundings, **connection_of(stored, Identity())}
        return self._find(stored.head.method, stored_path_in(stored), connection)

    def _request(self, stored: StoredRequest, identity: Identity, route: Route, terms: Terms) -> _Unheard:
        connection = {**self._surroundings, **connection_of(stored, identity)}
        if "state" in connection:  # each request has a copy of what the lifespan left
            connection["state"] = dict(connection["state"])
        return _Unheard(self._application, connection, route, terms, self._begin, self._resolver, self._driver)


class _Unheard(Exchange):
    """A request whose answer nobody waits for."""

    __slots__ = ("_driver", "ending")

    def __init__(  # noqa: PLR0913, PLR0917 - what a request consists of here
        self,
        application: Application,
        connection: Connection,
        route: Route,
        terms: Terms,
        begin: Begin,
        resolver: Resolver,
        driver: Driver,
    ) -> None:
        super().__init__(application, connection, _never, _into_the_void, route, terms, begin, resolver, None)
        self._driver = driver
        self.ending = ""

    async def drive(self, work: Flow[Answer]) -> None:
        """Drive it to its end."""
        await self._driver.run(work, self)

    async def answer(self, answer: Answer) -> None:
        """Take note of how it ended."""
        self.ending = answer.ending
        await super().answer(answer)


async def _never() -> Message:
    return {"type": "http.disconnect"}


async def _into_the_void(_: Message) -> None:
    return


def connection_of(stored: StoredRequest, identity: Identity) -> dict[str, Any]:
    """The ASGI connection scope of a stored request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": stored.head.method,
        "scheme": stored.scheme,
        "path": stored_path(stored),
        "raw_path": stored.head.path,
        "query_string": stored.head.query,
        "root_path": stored.root,
        "headers": list(stored_headers(stored, identity)),
        "client": None,
        "server": None,
        **identity.connection,
    }
