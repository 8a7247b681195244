"""Stored requests sent again through a door, in the name of their account; a door's own module says how."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

from retrysafe.errors import CallerError
from retrysafe.model import Headers
from retrysafe.observe import name_of
from retrysafe.operation.recovery import Fared, Means
from retrysafe.protocol.answers import Answer, Ending
from retrysafe.protocol.effects import Flow
from retrysafe.protocol.flow import Terms, resume
from retrysafe.protocol.policy import Policy
from retrysafe.protocol.stored_request import StoredRequest
from retrysafe.protocol.transitions import Listed, TakeOverIfLapsed
from retrysafe.server.routes import Route

_log = logging.getLogger("retrysafe")


@dataclass(frozen=True, slots=True)
class Identity:
    """In whose name a stored request is sent again: what authentication would have left in the request.

    Attributes:
        headers: fields to send it with, in place of stored ones of the same name.
        connection: entries of the ASGI connection scope, or of the WSGI environ, or attributes of a request of
            Django's: `{"user": ...}`, say, where middleware outside of this layer sets it.
    """

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    connection: Mapping[str, Any] = field(default_factory=dict, repr=False)


Reauthenticate = Callable[[str], Identity | None | Awaitable[Identity | None]]


class Unheard(Protocol):
    """A request whose answer nobody waits for."""

    @property
    def ending(self) -> str:
        """How it ended; empty before that."""

    async def drive(self, work: Flow[Answer]) -> None:
        """Drive it to its end."""


class Redrive(ABC):
    """Sends stored requests again through one door.

    Args:
        named: from an entry, as records keep it, to the door's route; None if there is none any more.
        reauthenticate: from an account to an identity.
        means: of the door.
    """

    def __init__(
        self, named: Callable[[str], Route | None], reauthenticate: Reauthenticate | None, means: Means
    ) -> None:
        self._named = named
        self._reauthenticate = reauthenticate
        self._means = means

    @property
    def can_redrive(self) -> bool:
        """There is somebody to say in whose name."""
        return self._reauthenticate is not None

    def policy(self, route: str) -> Policy | None:
        """Of the records of a route; None if the door has no such route."""
        named = self._named(route)
        return None if named is None else named.policy

    @abstractmethod
    def _route(self, stored: StoredRequest) -> Route | None:
        """What a stored request falls under now; None if it is not enrolled."""

    @abstractmethod
    def _request(self, stored: StoredRequest, identity: Identity, route: Route, terms: Terms) -> Unheard:
        """The request, made of what was stored of it."""

    async def redrive(self, listed: Listed, stored: StoredRequest) -> Fared:
        """Send a stored request again, as a retry under the same key, in the name of its account."""
        route = self._route(stored)
        if route is None or route.entry != listed.record.route or self._reauthenticate is None:
            return Fared.NOT_HERE
        try:
            identity = await self._identity(self._reauthenticate, stored.scope)
            if identity is None:
                return Fared.GONE
            terms = self._terms(route)
            request = self._request(stored, identity, route, terms)
        except Exception:  # noqa: BLE001 - the application's own function, whose failure is for the log
            _log.exception("reauthenticate= failed for record %s; it is left alone", name_of(listed.record_id))
            return Fared.FAILED
        return await _driven(request, listed, stored, terms)

    async def _identity(self, reauthenticate: Reauthenticate, account: str) -> Identity | None:
        """In whose name; of a function that is no coroutine's on a thread, because it may block."""
        if inspect.iscoroutinefunction(reauthenticate):
            identity = await reauthenticate(account)
        else:
            given = await asyncio.to_thread(reauthenticate, account)
            identity = await given if inspect.isawaitable(given) else given
        if identity is None or isinstance(identity, Identity):
            return identity
        raise CallerError(f"reauthenticate= gave a {type(identity).__name__}; it must give an Identity, or None")

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


async def _driven(request: Unheard, listed: Listed, stored: StoredRequest, terms: Terms) -> Fared:
    record, policy = listed.record, terms.policy
    claiming = TakeOverIfLapsed(
        listed.record_id, record.token, terms.token, policy.lease_ms, policy.unknown_retention_ms
    )
    try:
        await request.drive(resume(stored, record, claiming, terms))
    except Exception:  # noqa: BLE001 - of its scope, or of its handler after its outcome was recorded; nobody else logs it
        _log.exception("record %s: its request failed while it was sent again", name_of(listed.record_id))
    return _FARED.get(request.ending, Fared.FAILED)


_FARED: dict[str, Fared] = {
    # by how its flow ended; of any other ending, somebody should read the log
    Ending.RECORDED: Fared.DRIVEN,
    Ending.RELEASED: Fared.DRIVEN,
    Ending.DISCARDED: Fared.DRIVEN,
    Ending.TURNED_AWAY: Fared.TURNED_AWAY,
    Ending.OVERTAKEN: Fared.OVERTAKEN,
    Ending.CLAIM_LOST: Fared.OVERTAKEN,
    Ending.OTHER_ACCOUNT: Fared.GONE,
}


# --- the request, as it is stored -----------------------------------------------------------------


def stored_path(stored: StoredRequest) -> str:
    """The path, decoded, with what the application is mounted at."""
    return unquote_to_bytes(stored.head.path).decode("utf-8", "replace")


def stored_path_in(stored: StoredRequest) -> str:
    """The path as a router of the application matches it: without what the application is mounted at."""
    path = stored_path(stored)
    return path[len(stored.root) :] if stored.root and path.startswith(stored.root + "/") else path


def stored_headers(stored: StoredRequest, identity: Identity) -> Headers:
    """The fields that a stored request is sent again with."""
    given = tuple((name.lower().encode("latin-1"), line.encode("latin-1")) for name, line in identity.headers.items())
    replaced = {name for name, _ in given} | {b"content-length"}
    kept = tuple((name, line) for name, line in stored.head.headers if name not in replaced)
    return (*kept, *given, (b"content-length", b"%d" % len(stored.body)))
