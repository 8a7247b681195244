"""Small ASGI applications to stand behind a door in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from retrysafe.server.capture import Message
from retrysafe.server.handling import Application, Receive, Send
from retrysafe.server.scope import Connection

Headers = Iterable[tuple[bytes, bytes]]


def start(status: int = 201, headers: Headers = ()) -> Message:
    """The start of a response."""
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def piece(content: bytes = b"", *, more: bool = False) -> Message:
    """A piece of its content."""
    return {"type": "http.response.body", "body": content, "more_body": more}


async def content_of(receive: Receive) -> bytes:
    """The content of a request."""
    content = b""
    while True:
        message = await receive()
        assert message["type"] == "http.request"
        content += message["body"]
        if not message["more_body"]:
            return bytes(content)


class Shop:
    """Takes orders: every call has one effect, and answers with its number.

    Args:
        status: of the answer.
        headers: of the answer.
        meanwhile: called in the handler, after its effect and before its answer.

    Attributes:
        effects: how many.
        entered: set when a handler runs.
        gate: a handler waits for it after its effect; open unless a test closes it.
        cancelled: how many handlers saw a cancellation.
    """

    def __init__(self, status: int = 201, headers: Headers = (), meanwhile: Callable[[], None] | None = None) -> None:
        self.status = status
        self.headers = headers
        self.meanwhile = meanwhile
        self.effects = 0
        self.contents: list[bytes] = []
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.cancelled = 0

    async def __call__(self, connection: Connection, receive: Receive, send: Send) -> None:
        """One order."""
        self.contents.append(await content_of(receive))
        self.effects += 1
        number = self.effects
        self.entered.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.meanwhile is not None:
            self.meanwhile()
        await send(start(self.status, self.headers))
        await send(piece(b"order %d" % number))


def sending(*messages: Message, then: BaseException | None = None) -> Application:
    """An application that sends these messages, and then raises if it is to."""

    async def application(connection: Connection, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        if then is not None:
            raise then

    return application


def raising(error: BaseException) -> Application:
    """An application that only raises."""
    return sending(then=error)
