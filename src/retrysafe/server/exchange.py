"""One protected request at the ASGI door: what the driver needs of it, and what the handler sees.

The handler waits in `send` at the message that completes its response, until the record is durable; what
it does after that is outside the record. It is never told that the client left: its outcome is recorded
whether anybody waits for it or not (contract R53).
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, assert_never
from urllib.parse import quote

from retrysafe.drive.aio import Conclude
from retrysafe.errors import CallerError, IncompleteResponse
from retrysafe.model import Body, BytesBody, Head, Request, Response
from retrysafe.operation.handle import begin
from retrysafe.protocol import effects, flow
from retrysafe.protocol.effects import Execute, Outcome, Unread
from retrysafe.protocol.flow import Terms
from retrysafe.server.body import MEMORY_BYTES_MAX, Spool
from retrysafe.server.capture import Capture, Message
from retrysafe.server.routes import Route
from retrysafe.server.scope import Connection, Resolver

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Connection, Receive, Send], Awaitable[None]]
Authorizer = Callable[[Connection], bool | Awaitable[bool]]

# Ways to answer that go past the door, or past the last piece of content.
_EXTENSIONS_HIDDEN = frozenset(
    {"http.response.pathsend", "http.response.zerocopysend", "http.response.trailers", "http.response.push"}
)


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
        resolver: finds the account.
        authorizer: asked before a replay; None allows every replay.
    """

    __slots__ = (
        "_answered", "_application", "_authorizer", "_broken_off", "_capture", "_conclude", "_connection", "_content",
        "_is_over", "_left", "_muted", "_operation", "_over", "_resolver", "_sending", "_server_connection",
        "_server_receive", "_server_send", "_terms", "head", "route",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913, PLR0917 - what a request consists of here
        self,
        application: Application,
        connection: Connection,
        receive: Receive,
        send: Send,
        route: Route,
        terms: Terms,
        resolver: Resolver,
        authorizer: Authorizer | None,
    ) -> None:
        self.route = route.entry
        self.head = _head(connection)
        # Frozen: a server may go on adding to its list while the content arrives, and what was judged must be what is.
        self._server_connection = connection
        connection = {**connection, "headers": list(self.head.headers), PROTECTED: True}
        self._application = application
        self._connection = connection
        self._server_receive = receive
        self._server_send = send
        self._terms = terms
        self._resolver = resolver
        self._authorizer = authorizer
        self._capture = Capture(route.policy.response_bytes_max, route.withheld)
        self._conclude: Conclude | None = None
        self._answered = False
        self._muted = False
        self._broken_off = False
        self._left = False
        self._sending: asyncio.Task[Any] | None = None
        self._over: asyncio.Event | None = None
        self._is_over = False

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

    # --- the handler ------------------------------------------------------------------------------

    async def execute(self, effect: Execute, conclude: Conclude) -> None:
        """Run the handler to its end; conclude at the message that completes its response."""
        self._operation = begin(effect, self._terms.secret)
        self._conclude = conclude
        self._content = _messages(effect.request)
        try:
            await self._application(_without_shortcuts(self._connection), self._receive, self._send)
        except asyncio.CancelledError:
            await self._conclude_early(effects.Cancelled(self._operation.fate))
            raise
        except BaseException:
            await self._conclude_early(effects.Raised(self._operation.fate))
            raise
        if self._conclude is not None:
            await self._conclude_early(effects.Raised(self._operation.fate))
            raise IncompleteResponse
        if self._broken_off:
            raise IncompleteResponse("the response was broken off: the outcome of the operation is unknown")

    async def _conclude_early(self, outcome: Outcome) -> None:
        """The handler is over without a complete response. What was sent cannot be taken back."""
        if self._conclude is not None:
            await self._take_conclude()(effects.Broken() if self._capture.sent else outcome)

    def _take_conclude(self) -> Conclude:
        """To be called once; then let go of, because it refers back to this, and content may be held by this."""
        conclude, self._conclude = self._conclude, None
        if conclude is None:
            raise AssertionError("an outcome was concluded twice")
        return conclude

    async def _receive(self) -> Message:
        """For the handler: its content, and then nothing until its response is complete."""
        for message in self._content:
            return message
        if not self._is_over:
            self._over = self._over or asyncio.Event()
            await self._over.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        """For the handler: takes its response; the message that completes it waits for the record."""
        kind = message["type"]
        if self._answered:
            await self._forward(message)
        elif self._conclude is None:
            self._capture.held.append(message)  # from another task of the handler, while the first waits
        elif kind == "http.response.start":
            self._capture.start(message)
        elif kind != "http.response.body":
            await self._forward(message)
        elif self._capture.piece(message):
            answered = self._capture.answered(self._operation.fate)
            await self._take_conclude()(answered)
        else:
            for waiting in self._capture.release():
                await self._forward(waiting)

    async def _forward(self, message: Message) -> None:
        if self._muted:
            return
        self._sending = asyncio.current_task()
        try:
            await self._server_send(message)
        except OSError:
            self._muted = True  # the client is gone; the handler does not learn of it
        except asyncio.CancelledError:
            if not self._left or self._sending is None:
                raise
            self._left = False  # this cancellation was `leave`'s, of this send alone
            self._sending.uncancel()
        finally:
            self._sending = None

    # --- the answer -------------------------------------------------------------------------------

    async def answer(self, answer: flow.Answer) -> None:
        """Send what the flow decided."""
        match answer:
            case flow.Deliver(recorded=recorded):
                while self._capture.held:
                    for message in self._capture.release():
                        await self._forward(message if recorded else _marked_unrecorded(message))
            case flow.Respond(response) if not self._capture.sent:
                await self._respond(response)
            case flow.Respond() | flow.BreakOff():
                self._broken_off = self._muted = True
            case flow.Bypass():
                await self._application(self._server_connection, self._server_receive, self._server_send)
            case flow.Vanish():
                pass
            case _:
                assert_never(answer)
        self._answered = True
        self.overdue()

    async def _respond(self, response: Response) -> None:
        start = {"type": "http.response.start", "status": response.status, "headers": list(response.headers)}
        await self._forward(start)
        await self._forward({"type": "http.response.body", "body": response.body})
        self._muted = True  # nothing that the handler says later belongs to this response

    def leave(self) -> None:
        """Nobody waits for the answer any more: send nothing further, and give up what is being sent.

        Whatever stood between the server and this door has been torn down, so a send might never return.
        """
        self._muted = True
        if self._sending is not None:
            self._left = True
            self._sending.cancel()

    def overdue(self) -> None:
        """Let the handler see the disconnect that was kept from it; one that streams without end ends by it."""
        self._is_over = True
        if self._over is not None:
            self._over.set()


def _marked_unrecorded(message: Message) -> Message:
    if message["type"] != "http.response.start":
        return message
    return {**message, "headers": [*message.get("headers", ()), flow.UNRECORDED_STATUS]}


def _head(connection: Connection) -> Head:
    path = connection.get("raw_path") or quote(connection["path"]).encode()
    return Head(connection["method"].upper(), path, connection.get("query_string", b""), tuple(connection["headers"]))


def _messages(request: Request) -> Iterator[Message]:
    """The content as ASGI messages: one if it is in memory, else one for each piece of the file."""
    body = request.body
    if isinstance(body, BytesBody):
        return iter(({"type": "http.request", "body": body.content, "more_body": False},))
    return _spooled_messages(body)


def _spooled_messages(body: Body) -> Iterator[Message]:
    left = body.size
    for content in body.chunks():
        left -= len(content)
        yield {"type": "http.request", "body": content, "more_body": left > 0}
        if left <= 0:
            return


def _without_shortcuts(connection: Connection) -> Connection:
    extensions: dict[str, Any] = connection.get("extensions") or {}
    if not extensions or _EXTENSIONS_HIDDEN.isdisjoint(extensions):
        return connection
    shown = {name: value for name, value in extensions.items() if name not in _EXTENSIONS_HIDDEN}
    return {**connection, "extensions": shown}
