"""One protected request at the ASGI door: what the driver needs of it, and what the handler sees.

The handler runs in a task of its own. It parks in `send` at the message that completes its response,
until the record is durable; what it does after that is outside the record. It is never told that the
client left: its outcome is recorded whether anybody waits for it or not (contract R53).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, assert_never
from urllib.parse import quote

from retrysafe.errors import IncompleteResponse
from retrysafe.model import Head, Request, Response
from retrysafe.operation.handle import Operation, begin
from retrysafe.protocol import effects, flow
from retrysafe.protocol.effects import Execute, Outcome, Unread
from retrysafe.protocol.flow import Terms
from retrysafe.server.body import Spool
from retrysafe.server.capture import Capture, Message
from retrysafe.server.scope import Connection, Resolver, resolve

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Connection, Receive, Send], Awaitable[None]]
Authorizer = Callable[[Connection], bool | Awaitable[bool]]

# Ways to answer that go past the door, or past the last piece of content.
_EXTENSIONS_HIDDEN = frozenset(
    {"http.response.pathsend", "http.response.zerocopysend", "http.response.trailers", "http.response.push"}
)


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

    def __init__(  # noqa: PLR0913, PLR0917 - what a request consists of here
        self,
        application: Application,
        connection: Connection,
        receive: Receive,
        send: Send,
        route: str,
        terms: Terms,
        resolver: Resolver,
        authorizer: Authorizer | None,
    ) -> None:
        self.route = route
        self.head = _head(connection)
        self._application = application
        self._connection = connection
        self._server_receive = receive
        self._server_send = send
        self._terms = terms
        self._resolver = resolver
        self._authorizer = authorizer
        withheld = frozenset({terms.policy.replay_marker.lower().encode(), flow.UNRECORDED_STATUS[0]})
        self._capture = Capture(terms.policy.response_bytes_max, withheld)
        self._recorded: asyncio.Future[None] | None = None
        self._muted = False
        self._broken_off = False
        self._over = asyncio.Event()

    # --- before the handler -----------------------------------------------------------------------

    async def scope(self) -> str | None:
        """The account that the request belongs to."""
        return await resolve(self._resolver, self._connection)

    async def request(self, body_bytes_max: int) -> Request | Unread:
        """The request with its whole content; nothing is read of one that says it is too large."""
        lengths = self.head.values(b"content-length")
        if lengths and lengths[0].isdigit() and int(lengths[0]) > body_bytes_max:
            return Unread.TOO_LARGE
        spool = Spool(body_bytes_max)
        while True:
            message = await self._server_receive()
            if message["type"] != "http.request":
                return Unread.CLIENT_GONE
            piece = message.get("body", b"")
            if spool.writes(piece):
                await asyncio.to_thread(spool.add, piece)
            else:
                spool.add(piece)
            if spool.full:
                return Unread.TOO_LARGE
            if not message.get("more_body", False):
                return Request(self.head, spool.body())

    async def authorize(self) -> bool:
        """May the caller see the stored answer now?"""
        if self._authorizer is None:
            return True
        allowed = self._authorizer(self._connection)
        return allowed if isinstance(allowed, bool) else await allowed

    # --- the handler ------------------------------------------------------------------------------

    async def execute(self, effect: Execute) -> Outcome:
        """Run the handler up to its last response message, which waits for `answer`. Never raises."""
        loop = asyncio.get_running_loop()
        self._operation: Operation = begin(effect, self._terms.secret)
        self._outcome: asyncio.Future[Outcome] = loop.create_future()
        self._recorded = loop.create_future()
        self._content: Iterator[Message] = _messages(effect.request)
        self._handler = loop.create_task(self._handle())
        return await self._outcome

    async def _handle(self) -> None:
        try:
            await self._application(_without_shortcuts(self._connection), self._receive, self._send)
        except asyncio.CancelledError:
            self._end_early(effects.Cancelled(self._operation.fate))
            raise
        except BaseException:
            self._end_early(effects.Raised(self._operation.fate))
            raise
        if not self._outcome.done():
            self._end_early(effects.Raised(self._operation.fate))
            raise IncompleteResponse

    def _end_early(self, outcome: Outcome) -> None:
        """The handler is over without a complete response. What was sent cannot be taken back."""
        if not self._outcome.done():
            self._outcome.set_result(effects.Broken() if self._capture.sent else outcome)

    async def _receive(self) -> Message:
        """For the handler: its content, and then nothing until its response is complete."""
        for message in self._content:
            return message
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        """For the handler: takes its response; the message that completes it waits for the record."""
        kind = message["type"]
        if self._outcome.done():
            await self._forward(message)
        elif kind == "http.response.start":
            self._capture.start(message)
        elif kind != "http.response.body":
            await self._forward(message)
        elif self._capture.piece(message):
            self._outcome.set_result(self._capture.answered(self._operation.fate))
            await self._wait_for_record()
        else:
            for waiting in self._capture.release():
                await self._forward(waiting)

    async def _wait_for_record(self) -> None:
        if self._recorded is not None:
            await self._recorded

    async def _forward(self, message: Message) -> None:
        if self._muted:
            return
        try:
            await self._server_send(message)
        except OSError:
            self._muted = True  # the client is gone; the handler does not learn of it

    # --- the answer -------------------------------------------------------------------------------

    async def answer(self, answer: flow.Answer) -> None:
        """Send what the flow decided, and let the handler go on."""
        match answer:
            case flow.Bypass():
                await self._application(self._connection, self._server_receive, self._server_send)
            case flow.Vanish():
                pass
            case flow.Respond(response) if not self._capture.sent:
                await self._respond(response)
            case flow.Deliver(recorded=recorded):
                for message in self._capture.release():
                    await self._forward(message if recorded else _marked_unrecorded(message))
            case flow.Respond() | flow.BreakOff():
                self._broken_off = True
                self._muted = True
            case _:
                assert_never(answer)
        self._let_go()

    async def _respond(self, response: Response) -> None:
        start = {"type": "http.response.start", "status": response.status, "headers": list(response.headers)}
        await self._forward(start)
        await self._forward({"type": "http.response.body", "body": response.body})
        self._muted = True  # nothing that the handler says later belongs to this response

    def _let_go(self) -> None:
        self._over.set()
        if self._recorded is not None and not self._recorded.done():
            self._recorded.set_result(None)

    async def finish(self) -> None:
        """Wait for what the handler does after its answer; raise what it raised, for the server's log."""
        try:
            await self._handler
        except asyncio.CancelledError:
            if not self._handler.cancelled():
                raise
        if self._broken_off:
            raise IncompleteResponse("the response was broken off: the outcome of the operation is unknown")

    def overdue(self) -> None:
        """Let a handler that streams without end see the disconnect that was kept from it."""
        self._over.set()

    def cancel(self) -> None:
        """Stop the handler."""
        self._handler.cancel()


def _marked_unrecorded(message: Message) -> Message:
    if message["type"] != "http.response.start":
        return message
    return {**message, "headers": [*message.get("headers", ()), flow.UNRECORDED_STATUS]}


def _head(connection: Connection) -> Head:
    path = connection.get("raw_path") or quote(connection["path"]).encode()
    return Head(connection["method"], path, connection.get("query_string", b""), tuple(connection["headers"]))


def _messages(request: Request) -> Iterator[Message]:
    """The content as ASGI messages: one if it is in memory, else one for each piece of the file."""
    left = request.body.size
    for content in request.body.chunks():
        left -= len(content)
        yield {"type": "http.request", "body": content, "more_body": left > 0}
        if left <= 0:
            return


def _without_shortcuts(connection: Connection) -> Connection:
    extensions: dict[str, Any] = connection.get("extensions") or {}
    if _EXTENSIONS_HIDDEN.isdisjoint(extensions):
        return connection
    shown = {name: value for name, value in extensions.items() if name not in _EXTENSIONS_HIDDEN}
    return {**connection, "extensions": shown}
