"""One observed request at the ASGI door: the handler and the server speak to each other, and a sighting is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any

from retrysafe.server.capture import Message
from retrysafe.server.exchange import head_of
from retrysafe.server.handling import Application, Receive, Send
from retrysafe.server.length import Length
from retrysafe.server.observing import OBSERVED, Watcher
from retrysafe.server.routes import Route
from retrysafe.server.scope import Connection, Resolver
from retrysafe.server.sighting import Sighting

_log = logging.getLogger("retrysafe")

_ACCOUNT_S_MAX = 30.0  # how long an account may take to be found; nobody waits for it
_BODIES = frozenset({"http.response.body", "http.response.pathsend", "http.response.zerocopysend"})

_finding: set[asyncio.Task[None]] = set()  # what keeps these alive


async def observe(  # noqa: PLR0913, PLR0917 - what a request consists of here
    application: Application,
    connection: Connection,
    receive: Receive,
    send: Send,
    route: Route,
    watcher: Watcher,
    resolver: Resolver,
) -> None:
    """Serve a request exactly as without a door, and have it counted.

    Args:
        application: the handler.
        connection: the ASGI connection scope.
        receive: the server's.
        send: the server's.
        route: that the request falls under.
        watcher: of the door.
        resolver: finds the account; a coroutine function is not waited for.
    """
    is_first = OBSERVED not in connection  # of several doors around one application the outermost counts
    connection[OBSERVED] = True
    sighting = watcher.look_at(route, head_of(connection)) if is_first else None
    if sighting is None:
        await application(connection, receive, send)
        return
    _find_account(sighting, resolver, connection)
    if list(sighting.head.values(b"content-length")) == [b"0"]:
        sighting.whole()  # many a handler never asks for a content that is not there
    told = _Telling(sighting, receive, send)
    try:
        await application(connection, told.receive, told.send)
    except BaseException as failure:
        sighting.end(failure)
        raise
    sighting.end()


class _Telling:
    """Hands messages on, in both directions, and tells the sighting of them first."""

    __slots__ = ("_has_asked", "_length", "_receive", "_send", "_sighting")

    def __init__(self, sighting: Sighting, receive: Receive, send: Send) -> None:
        self._sighting = sighting
        self._receive = receive
        self._send = send
        self._length = Length()
        self._has_asked = False

    async def receive(self) -> Message:
        """For the handler."""
        self._has_asked = True
        message = await self._receive()
        if message["type"] == "http.request":
            self._sighting.take(message.get("body", b""))
            if not message.get("more_body", False):
                self._sighting.whole()
        return message

    async def send(self, message: Message) -> None:
        """For the handler. The end is told before it goes out: a client that has it may ask again at once."""
        kind = message.get("type")
        if kind == "http.response.start":
            status, headers = message.get("status", 0), message.get("headers")
            headers = headers if isinstance(headers, list | tuple) else ()  # what can be read once is the server's
            self._sighting.answer(status, headers)
            self._length.start(status, headers)
            if not self._has_asked and _says_no_content(self._sighting):
                self._sighting.whole()
        elif kind in _BODIES and (self._length.reached(message.get("body")) or not message.get("more_body", False)):
            self._sighting.end()
        await self._send(message)


def _says_no_content(sighting: Sighting) -> bool:
    """Whether a content would have been announced, and was not. Not every server hands that on, so it is no proof."""
    return not (sighting.head.values(b"content-length") or sighting.head.values(b"transfer-encoding"))


# --- whose key it is ------------------------------------------------------------------------------


def _find_account(sighting: Sighting, resolver: Resolver, connection: Connection) -> None:
    """As protection would; but what a coroutine function does is done beside the request."""
    account: Any = None
    with _failures():
        account = resolver(dict(connection))
        if account is not None and not isinstance(account, str):
            task = asyncio.get_running_loop().create_task(_found_later(sighting, account))
            _finding.add(task)
            task.add_done_callback(_finding.discard)
            return
    sighting.belongs_to(account)


async def _found_later(sighting: Sighting, finding: Awaitable[str | None]) -> None:
    account = None
    try:
        with _failures():
            async with asyncio.timeout(_ACCOUNT_S_MAX):
                account = await finding
    finally:
        sighting.belongs_to(account if isinstance(account, str) else None)


@contextmanager
def _failures() -> Iterator[None]:
    """The application's own function failed: for the log, and not for the request."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever it raises, the request must not notice
        _log.warning("scope= failed for an observed request: %s", type(error).__name__)
