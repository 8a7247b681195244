"""One protected request at the ASGI door: what the driver needs of it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any
from urllib.parse import quote

from retrysafe.drive.aio import Conclude
from retrysafe.errors import CallerError
from retrysafe.model import BytesBody, Head, Request
from retrysafe.operation.handle import Begin
from retrysafe.protocol import answers
from retrysafe.protocol.effects import Execute, Unread
from retrysafe.protocol.flow import Terms
from retrysafe.server.body import MEMORY_BYTES_MAX, Spool
from retrysafe.server.capture import Capture, Message
from retrysafe.server.handling import Application, Handling, Receive, Send, messages_of
from retrysafe.server.routes import Route
from retrysafe.server.scope import Connection, Resolver

Authorizer = Callable[[Connection], bool | Awaitable[bool]]

# In the connection scope of a handler whose request a door protects. Not a context variable: a server may start
# the next request of a connection in the context of the one before.
PROTECTED = "retrysafe.protected"


class Exchange:
    """The state of one request; a new object for each.

    Args:
        application: the handler.
        connection: the ASGI connection scope.
        receive: the server's.
        send: the server's.
        route: the entry of the routes table that matched.
        terms: what holds for this request.
        begin: makes its operation.
        resolver: finds the account.
        authorizer: asked before a replay; None allows every replay.
    """

    __slots__ = (
        "_application", "_authorizer", "_begin", "_connection", "_gone", "_handling", "_resolver", "_route",
        "_server_connection", "_server_receive", "_server_send", "_terms", "head", "route",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913, PLR0917 - what a request consists of here
        self,
        application: Application,
        connection: Connection,
        receive: Receive,
        send: Send,
        route: Route,
        terms: Terms,
        begin: Begin,
        resolver: Resolver,
        authorizer: Authorizer | None,
    ) -> None:
        self.route = route.entry
        self.head = head_of(connection)
        # Frozen: a server may go on adding to its list while the content arrives, and what was judged must be what is.
        self._connection = {**connection, "headers": list(self.head.headers), PROTECTED: True}
        self._server_connection = connection
        self._application = application
        self._server_receive = receive
        self._server_send = send
        self._route = route
        self._terms = terms
        self._begin = begin
        self._resolver = resolver
        self._authorizer = authorizer
        self._handling: Handling | None = None
        self._gone = False

    # --- before the handler -----------------------------------------------------------------------

    async def scope(self) -> str | None:
        """The account that the request belongs to; empty is none."""
        account = self._resolver(self._connection)
        if account is not None and not isinstance(account, str):
            account = await account if inspect.isawaitable(account) else account
            if account is not None and not isinstance(account, str):
                raise CallerError(f"scope= gave a {type(account).__name__}; it must give a string, or None")
        return account or None

    async def request(self, body_bytes_max: int) -> Request | Unread:
        """The request with its whole content; nothing is read of one that says it is too large."""
        lengths = self.head.values(b"content-length")
        if lengths and lengths[0].isdigit() and int(lengths[0]) > body_bytes_max:
            return Unread.TOO_LARGE
        message = await self._server_receive()
        content = message.get("body", b"")
        if not message.get("more_body", False) and len(content) <= min(body_bytes_max, MEMORY_BYTES_MAX):
            is_whole = message["type"] == "http.request"
            return Request(self.head, BytesBody(content)) if is_whole else Unread.CLIENT_GONE
        return await self._spooled(message, body_bytes_max)

    async def _spooled(self, message: Message, body_bytes_max: int) -> Request | Unread:
        spool = Spool(body_bytes_max)
        while message["type"] == "http.request":
            piece = message.get("body", b"")
            if spool.writes(piece):
                await asyncio.to_thread(spool.add, piece)
            else:
                spool.add(piece)
            if spool.full:
                return Unread.TOO_LARGE
            if not message.get("more_body", False):
                return Request(self.head, spool.body())
            message = await self._server_receive()
        return Unread.CLIENT_GONE

    async def authorize(self) -> bool:
        """May the caller see the stored answer now?"""
        if self._authorizer is None:
            return True
        allowed = self._authorizer(self._connection)
        return bool(await allowed if inspect.isawaitable(allowed) else allowed)

    async def departure(self) -> None:
        """Return when the client has gone. Its content is read, so nothing else can come."""
        message = await self._server_receive()
        if message["type"] != "http.disconnect":
            await asyncio.get_running_loop().create_future()  # a server that says anything else will never tell

    # --- the handler and the answer ---------------------------------------------------------------

    def execute(self, effect: Execute, conclude: Conclude) -> Coroutine[Any, Any, None]:
        """Run the handler to its end; conclude at the message that completes its response."""
        operation = self._begin(effect, self._terms)
        if self._route.marked:
            operation.await_entry()
        capture = Capture(self._route.policy.response_bytes_max, self._route.withheld)
        self._handling = Handling(effect.request.body, self._server_send, operation, capture, conclude)
        if self._gone:
            self._handling.leave()
        return self._handling.run(self._application, self._connection)

    def answer(self, answer: answers.Answer) -> Coroutine[Any, Any, None]:
        """Send what the flow decided."""
        return self._answer_early(answer) if self._handling is None else self._handling.answer(answer)

    async def _answer_early(self, answer: answers.Answer) -> None:
        """No handler runs for this request under its key."""
        if isinstance(answer, answers.Respond):
            try:
                for message in messages_of(answer.response):
                    await self._server_send(message)
            except OSError:
                pass  # the client is gone
        elif isinstance(answer, answers.Bypass):
            await self._application(self._server_connection, self._server_receive, self._server_send)

    def leave(self) -> None:
        """Nobody waits for the answer any more."""
        self._gone = True
        if self._handling is not None:
            self._handling.leave()

    def overdue(self) -> None:
        """The handler had all the time it may have: let it know."""
        if self._handling is not None:
            self._handling.overdue()


def head_of(connection: Connection) -> Head:
    """The request before its content is read."""
    path = connection.get("raw_path") or quote(connection["path"]).encode()
    return Head(connection["method"].upper(), path, connection.get("query_string", b""), tuple(connection["headers"]))
