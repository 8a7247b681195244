"""Stored requests sent again through an ASGI door, in the name of their account."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

from retrysafe.drive.aio import Driver
from retrysafe.errors import CallerError, ConfigurationError, StoreError
from retrysafe.model import Headers
from retrysafe.observe import Observer, StoreFailed, name_of
from retrysafe.operation.handle import Begin
from retrysafe.operation.recovery import Completer, Counts, Door, Fared, Means, Reconcile, Reconciler, Report, reap
from retrysafe.protocol.flow import Answer, Ending, Terms, resume
from retrysafe.protocol.policy import Policy
from retrysafe.protocol.stored_request import StoredRequest
from retrysafe.protocol.transitions import Listed, TakeOverIfLapsed
from retrysafe.server.capture import Message
from retrysafe.server.exchange import Exchange
from retrysafe.server.handling import Application
from retrysafe.server.routes import Route, Routes
from retrysafe.server.scope import Connection, Resolver

_log = logging.getLogger("retrysafe")


@dataclass(frozen=True, slots=True)
class Identity:
    """In whose name a stored request is sent again: what authentication would have left in the request.

    Attributes:
        headers: fields to send it with, in place of stored ones of the same name.
        connection: entries of the ASGI connection scope, or of the WSGI environ: `{"user": ...}`, say, where
            middleware outside of this layer sets it.
    """

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    connection: Mapping[str, Any] = field(default_factory=dict, repr=False)


Reauthenticate = Callable[[str], Identity | None | Awaitable[Identity | None]]


Find = Callable[[str, str, Connection], Route | None]


class Redrive:
    """Sends stored requests again through one door.

    Args:
        application: the handler.
        routes: of the door.
        find: from a method, a path and a connection scope to a route, as for requests of clients.
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
        find: Find,
        resolver: Resolver,
        driver: Driver,
        begin: Begin,
        reauthenticate: Reauthenticate | None,
        means: Means,
    ) -> None:
        self._application = application
        self._routes = routes
        self._find = find
        self._resolver = resolver
        self._driver = driver
        self._begin = begin
        self._reauthenticate = reauthenticate
        self._means = means
        self.connection: dict[str, Any] = {}
        """What a server, or a framework outside of the door, puts into every connection scope."""

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
        connection = {**self.connection, **_connection(stored, Identity())}
        route = self._find(stored.head.method, stored_path_in(stored), connection)
        if route is None or route.entry != listed.record.route or self._reauthenticate is None:
            return Fared.NOT_HERE
        try:
            given = self._reauthenticate(stored.scope)
            identity = checked_identity(await given if inspect.isawaitable(given) else given)
            if identity is None:
                return Fared.GONE
            exchange = self._exchange(stored, identity, route)
        except Exception:  # noqa: BLE001 - the application's own function, whose failure is for the log
            _log.exception("reauthenticate= failed for record %s; it is left alone", name_of(listed.record_id))
            return Fared.FAILED
        return await self._drive(listed, stored, exchange)

    def _exchange(self, stored: StoredRequest, identity: Identity, route: Route) -> _Unheard:
        terms = Terms(
            route.policy,
            self._means.namespace,
            self._means.secret,
            os.urandom(16),
            route=route.entry,
            encryption=self._means.encryption,
        )
        connection = {**self.connection, **_connection(stored, identity)}
        if "state" in connection:  # each request has a copy of what the lifespan left
            connection["state"] = dict(connection["state"])
        return _Unheard(self._application, connection, route, terms, self._begin, self._resolver)

    async def _drive(self, listed: Listed, stored: StoredRequest, exchange: _Unheard) -> Fared:
        terms, record = exchange.terms, listed.record
        policy = terms.policy
        claiming = TakeOverIfLapsed(
            listed.record_id, record.token, terms.token, policy.lease_ms, policy.unknown_retention_ms
        )
        try:
            await self._driver.run(resume(stored, record, claiming, terms), exchange)
        except Exception:  # noqa: BLE001 - the handler's, after its outcome was recorded; no server is there to log it
            _log.exception("the handler of record %s failed while it was sent again", name_of(listed.record_id))
        return FARED.get(exchange.ending, Fared.FAILED)


FARED: dict[str, Fared] = {
    # by how its flow ended; of any other ending, somebody should read the log
    Ending.RECORDED: Fared.DRIVEN,
    Ending.RELEASED: Fared.DRIVEN,
    Ending.DISCARDED: Fared.DRIVEN,
    Ending.OVERTAKEN: Fared.OVERTAKEN,
    Ending.CLAIM_LOST: Fared.OVERTAKEN,
    Ending.OTHER_ACCOUNT: Fared.GONE,
}


def checked_identity(identity: object) -> Identity | None:
    """What `reauthenticate=` gave.

    Raises:
        CallerError: it is neither an `Identity` nor None.
    """
    if identity is None or isinstance(identity, Identity):
        return identity
    raise CallerError(f"reauthenticate= gave a {type(identity).__name__}; it must give an Identity, or None")


class _Unheard(Exchange):
    """A request whose answer nobody waits for."""

    __slots__ = ("ending", "terms")

    def __init__(  # noqa: PLR0913, PLR0917 - what a request consists of here
        self,
        application: Application,
        connection: Connection,
        route: Route,
        terms: Terms,
        begin: Begin,
        resolver: Resolver,
    ) -> None:
        super().__init__(application, connection, _never, _into_the_void, route, terms, begin, resolver, None)
        self.terms = terms
        self.ending = ""

    async def answer(self, answer: Answer) -> None:
        """Take note of how it ended."""
        self.ending = answer.ending
        await super().answer(answer)


async def _never() -> Message:
    return {"type": "http.disconnect"}


async def _into_the_void(_: Message) -> None:
    return


def stored_path_in(stored: StoredRequest) -> str:
    """The path as a router of the application matches it: without what the application is mounted at."""
    path = stored_path(stored)
    return path[len(stored.root) :] if stored.root and path.startswith(stored.root + "/") else path


def stored_path(stored: StoredRequest) -> str:
    """The path, decoded, with what the application is mounted at."""
    return unquote_to_bytes(stored.head.path).decode("utf-8", "replace")


def _connection(stored: StoredRequest, identity: Identity) -> dict[str, Any]:
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


def stored_headers(stored: StoredRequest, identity: Identity) -> Headers:
    """The fields that a stored request is sent again with."""
    given = tuple((name.lower().encode("latin-1"), line.encode("latin-1")) for name, line in identity.headers.items())
    replaced = {name for name, _ in given} | {b"content-length"}
    kept = tuple((name, line) for name, line in stored.head.headers if name not in replaced)
    return (*kept, *given, (b"content-length", b"%d" % len(stored.body)))


class Redriving(Door, Protocol):
    """Sends stored requests again through one door, of either kind."""

    @property
    def can_redrive(self) -> bool:
        """There is somebody to say in whose name."""


class Recovery:
    """What a door does about operations that nobody drives any more.

    Args:
        redrive: sends requests again.
        means: of the door.
        reconcile: asked about records whose outcome is unknown; None: nobody is, and nothing is reaped.
        observer: told when the store fails.
    """

    def __init__(self, redrive: Redriving, means: Means, reconcile: Reconcile | None, observer: Observer) -> None:
        self._redrive = redrive
        self._means = means
        self._reconcile = reconcile
        self._observer = observer

    async def once(self, told: Callable[[Report], None]) -> Report:
        """Complete, reap and reconcile, once.

        Args:
            told: now and then, with what was done up to then.

        Raises:
            StoreError: the store failed; what was done by then stays so.
        """
        counts: Counts = Counter()

        def note(more: Counts) -> None:
            counts.update(more)
            told(Report(dict(counts)))

        if self._redrive.can_redrive:
            await Completer(self._redrive, self._means).run(note)
        if self._reconcile is not None:
            await reap(self._redrive, self._means, note)
            await Reconciler(self._redrive, self._means, self._reconcile).run(note)
        return Report(dict(counts))

    async def run(self, every_s: float, told: Callable[[Report], None]) -> None:
        """Again and again, until it is cancelled; a store that is away is asked again the next time.

        Args:
            every_s: about how long to wait in between; hosts that were started together drift apart.
            told: as for `once`.
        """
        while True:
            await asyncio.sleep(every_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing
            try:
                await self.once(told)
            except StoreError as error:
                self._observer.notice(StoreFailed("recovery", str(error)))


def check_recovery(
    scope: object,
    reauthenticate: object,
    reconcile: object,
    encryption_keys: object,
    complete_abandoned: object,
) -> None:
    """Whether these settings of a door go together.

    Raises:
        ConfigurationError: with what is wrong.
    """
    faults = []
    if reauthenticate is not None and encryption_keys is None:
        faults.append(
            "reauthenticate is set, so requests are stored, with the keys that clients sent, and these never stand in "
            "a store in the clear: set encryption_keys, or leave reauthenticate out"
        )
    if reauthenticate is not None and scope == "authorization":
        faults.append(
            'reauthenticate is set, so the account is stored with each request, and scope "authorization" makes a '
            "credential of it; take the account from what stays the same when a credential is rotated"
        )
    if complete_abandoned is not None and reauthenticate is None and reconcile is None:
        faults.append("complete_abandoned is set, and neither reauthenticate nor reconcile: there is nothing to do")
    if faults:
        raise ConfigurationError(faults)
