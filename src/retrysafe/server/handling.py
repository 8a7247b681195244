"""The handler of one protected request: what it sees, and what goes out of what it says.

The handler waits in `send` at the message that completes its response, until the record is durable; what
it does after that is outside the record. It is never told that the client left: its outcome is recorded
whether anybody waits for it or not (contract R53).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, assert_never

from retrysafe.drive.aio import Conclude
from retrysafe.errors import IncompleteResponse
from retrysafe.model import Body, BytesBody, Headers, Response
from retrysafe.operation.handle import Operation
from retrysafe.protocol import answers, effects
from retrysafe.protocol.effects import Ended
from retrysafe.server.capture import Capture, Message
from retrysafe.server.scope import Connection

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Connection, Receive, Send], Awaitable[None]]

# Ways to answer that go past the door, or past the last piece of content.
_EXTENSIONS_HIDDEN = frozenset(
    {"http.response.pathsend", "http.response.zerocopysend", "http.response.trailers", "http.response.push"}
)


class Handling:
    """One execution of the handler.

    Args:
        content: of the request.
        send: the server's.
        operation: the handler's handle.
        capture: takes the response.
        conclude: to be called once, with the outcome, before the message that completes the response is sent.
    """

    __slots__ = (
        "_answered", "_broken_off", "_capture", "_conclude", "_content", "_is_over", "_left", "_muted", "_operation",
        "_over", "_sending", "_server_send",
    )  # fmt: skip

    def __init__(self, content: Body, send: Send, operation: Operation, capture: Capture, conclude: Conclude) -> None:
        self._content = _messages(content)
        self._server_send = send
        self._operation = operation
        self._capture = capture
        # Called once; then let go of, because it refers back to this, and content may be held by this.
        self._conclude: Conclude | None = conclude
        self._answered = self._muted = self._broken_off = self._left = self._is_over = False
        self._sending: asyncio.Task[Any] | None = None
        self._over: asyncio.Event | None = None

    async def run(self, application: Application, connection: Connection) -> None:
        """The handler to its end."""
        try:
            shown = _without_shortcuts(connection) if connection.get("extensions") else connection
            await application(shown, self._receive, self._send)
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

    async def _conclude_early(self, ended: Ended) -> None:
        """The handler is over without a complete response. What was sent cannot be taken back."""
        if self._conclude is not None:
            ended = effects.Broken() if self._capture.sent else ended
            conclude, self._conclude = self._conclude, None
            await conclude(self._operation.outcome(ended))

    # --- what the handler sees --------------------------------------------------------------------

    async def _receive(self) -> Message:
        """Its content, and then nothing until its response is complete."""
        for message in self._content:
            return message
        if not self._is_over:
            self._over = self._over or asyncio.Event()
            await self._over.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        """Takes its response; the message that completes it waits for the record."""
        kind = message["type"]
        if self._answered:
            await self._forward((message,))
        elif self._conclude is None:
            self._capture.held.append(message)  # from another task of the handler, while the first waits
        elif kind == "http.response.start":
            self._capture.start(message)
        elif kind != "http.response.body":
            await self._forward((message,))
        elif self._capture.piece(message):
            answered = self._capture.answered(self._operation.fate)  # may raise, and then nothing is concluded yet
            conclude, self._conclude = self._conclude, None
            await conclude(self._operation.outcome(answered))
        elif self._operation.recorded is None:  # else what was recorded is sent, and nothing of this
            await self._forward(self._capture.release())

    # --- what goes out ----------------------------------------------------------------------------

    async def answer(self, answer: answers.Answer) -> None:
        """Send what the flow decided."""
        try:
            await self._say(answer)
            self._answered = True
        except BaseException:  # it had no patience for the sending, say: nothing may follow half an answer
            self._muted = True
            raise
        finally:
            self.overdue()  # it may see the disconnect now

    async def _say(self, answer: answers.Answer) -> None:
        match answer:
            case answers.Deliver():
                while self._capture.held:  # more may be held while these are sent
                    messages = self._capture.release()
                    await self._forward(_with(answer.added, messages))
            case answers.Respond(response) if not self._capture.sent:
                await self._forward(messages_of(response))
                self._muted = True  # nothing that the handler says later belongs to this response
            case answers.Respond() | answers.BreakOff():
                self._broken_off = self._muted = True
            case answers.Bypass() | answers.Vanish():
                raise AssertionError(f"{type(answer).__name__} is no answer once the handler runs")
            case _:
                assert_never(answer)

    async def _forward(self, messages: Iterable[Message]) -> None:
        if self._muted:
            return
        self._sending = asyncio.current_task()
        try:
            for message in messages:
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

    def leave(self) -> None:
        """Nobody waits for the answer any more: send nothing further, and give up what is being sent.

        Whatever stood between the server and this door has been torn down, so a send might never return.
        """
        self._muted = True
        if self._sending is not None:
            self._left = True
            self._sending.cancel()

    def overdue(self) -> None:
        """Let the handler see the disconnect that is kept from it; one that streams without end ends by it."""
        self._is_over = True
        if self._over is not None:
            self._over.set()


def messages_of(response: Response) -> tuple[Message, Message]:
    """A whole response as ASGI messages."""
    return (
        {"type": "http.response.start", "status": response.status, "headers": list(response.headers)},
        {"type": "http.response.body", "body": response.body},
    )


def _with(added: Headers, messages: Sequence[Message]) -> Iterable[Message]:
    """The messages, with more fields in the head that is among them."""
    if not added:
        return messages
    return (
        {**message, "headers": [*message.get("headers", ()), *added]} if _is_head(message) else message
        for message in messages
    )


def _is_head(message: Message) -> bool:
    return bool(message["type"] == "http.response.start")


def _messages(body: Body) -> Iterator[Message]:
    """The content as ASGI messages: one if it is in memory, else one for each piece of the file."""
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
    extensions: dict[str, Any] = connection["extensions"]
    shown = {name: value for name, value in extensions.items() if name not in _EXTENSIONS_HIDDEN}
    return {**connection, "extensions": shown}
