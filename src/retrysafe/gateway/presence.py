"""The client's side of an exchange: its content, whether it is still there, whether it has its answer.

ASGI says that a client left only to somebody who waits for it, and a task that waits is too dear for an exchange
that is over in a moment. So nobody is watched for the first moment, in which most exchanges are over.
"""

from __future__ import annotations

import asyncio

from retrysafe.errors import IncompleteResponse
from retrysafe.model import Headers
from retrysafe.server.exchange import Receive

# A client is watched after one to two of these.
_MOMENT_S = 0.05


class Client:
    """Who waits for the answer.

    Args:
        receive: the server's, or the door's.
        headers: of the request.
        protected: its leaving counts only when the answer has begun: until then the outcome is worth
            waiting for, whoever has left.

    Attributes:
        more: there is content that was not read yet.
        begun: its leaving counts.
        gone: it left before its request was whole.
        answered: the last piece of its answer is on its way.
        presence: ends when it leaves.
        sending: what sends its content on, if that came in pieces.
    """

    __slots__ = ("_receive", "_watching", "answered", "begun", "gone", "more", "presence", "sending")

    def __init__(self, receive: Receive, headers: Headers, *, protected: bool) -> None:
        self._receive = receive
        self._watching: asyncio.Task[None] | None = None
        self.sending: asyncio.Task[None] | None = None
        self.more = False
        for name, value in headers:
            if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b" 0")):
                self.more = True
        self.begun = not protected
        self.gone = self.answered = False
        self.presence = asyncio.timeout(None)  # a limit that leaving sets: the one way to end a block from outside

    async def piece(self) -> bytes:
        """The next piece of the content.

        Raises:
            IncompleteResponse: it will not come.
        """
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.gone, self.more = True, False
            raise IncompleteResponse("the client left before its request was whole")
        self.more = message.get("more_body", False)
        body: bytes = message.get("body", b"")
        return body

    @property
    def can_be_watched(self) -> bool:
        """Whether its leaving counts, and would be the next thing that it does."""
        return self.begun and not self.more

    def watch(self) -> None:
        """End `presence` when it leaves unanswered. The door says that only to a handler that is overdue."""
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    def end(self) -> None:
        """The exchange is over."""
        for task in (self._watching, self.sending):
            if task is not None:
                task.cancel()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self.answered:
            self.presence.reschedule(0)


class Watch:
    """Watches the clients of exchanges that last, by one timer for all of them."""

    def __init__(self) -> None:
        self._young: set[Client] = set()
        self._old: set[Client] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, client: Client) -> None:
        """An exchange begins."""
        self._young.add(client)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_MOMENT_S, self._look)

    def end(self, client: Client) -> None:
        """It is over."""
        self._young.discard(client)
        self._old.discard(client)
        client.end()

    def _look(self) -> None:
        for client in [client for client in self._old if client.can_be_watched]:
            self._old.discard(client)
            client.watch()
        self._old |= self._young
        self._young = set()
        self._timer = asyncio.get_running_loop().call_later(_MOMENT_S, self._look) if self._old else None
