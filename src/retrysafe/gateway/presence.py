"""Both sides of an exchange in time: whether the client is still there, and how long the upstream was silent.

ASGI says that a client left only to somebody who waits for it, and a task that waits is too dear for an exchange
that is over in a moment; so is a time limit of its own for each wait. So one timer looks at all exchanges, and
nobody's leaving is waited for in the first moment, in which most exchanges are over.
"""

from __future__ import annotations

import asyncio

from retrysafe.errors import IncompleteResponse
from retrysafe.model import Headers
from retrysafe.server.handling import Receive

# How often the timer looks: a client's leaving is waited for after one to two of these, and the end of
# patience with the upstream is noticed as much later.
_MOMENT_S = 0.05


class Client:
    """Who waits for the answer, and what it has sent.

    Args:
        receive: the server's, or the door's.
        headers: of the request.
        protected: its leaving counts only when the answer has begun: until then the outcome is worth
            waiting for, whoever has left.
        silence_s: how long the upstream may be silent.

    Attributes:
        more: there is content that was not read yet.
        gone: it left before its request was whole.
        begun: its answer has begun.
        answered: the last piece of its answer is on its way.
        given_up: why the exchange was ended before its end; empty if it was not, or because the client left.
        overdue: that was because the upstream was silent for too long.
        stay: ends when it leaves, or when the exchange is given up.
    """

    __slots__ = (
        "_deadline_s", "_is_old", "_loop", "_protected", "_receive", "_silence_s", "_watching", "answered", "begun",
        "given_up", "gone", "more", "overdue", "stay",
    )  # fmt: skip

    def __init__(self, receive: Receive, headers: Headers, *, protected: bool, silence_s: float) -> None:
        self._receive = receive
        self._protected = protected
        self._silence_s = silence_s
        self._loop = asyncio.get_running_loop()
        self._deadline_s: float | None = None
        self._watching: asyncio.Task[None] | None = None
        self._is_old = False
        self.more = False
        for name, value in headers:
            if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b" 0")):
                self.more = True
        self.given_up = ""
        self.begun = self.gone = self.answered = self.overdue = False
        self.stay = asyncio.timeout(None)  # a limit that is set from outside: the one way to end a block from there

    async def piece(self) -> bytes:
        """The next piece of the content. Until the answer begins, the upstream's time does not run meanwhile.

        Raises:
            IncompleteResponse: it will not come.
        """
        if self.begun:
            return await self._piece()
        self.rest()
        piece = await self._piece()
        if not self.begun:
            self.hurry()
        return piece

    async def _piece(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.gone, self.more = True, False
            raise IncompleteResponse("the client left before its request was whole")
        self.more = message.get("more_body", False)
        body: bytes = message.get("body", b"")
        return body

    # --- the upstream's time ----------------------------------------------------------------------

    def hurry(self) -> None:
        """From now on the upstream may be silent for so long."""
        self._deadline_s = self._loop.time() + self._silence_s

    def rest(self) -> None:
        """It is not the upstream who is waited for."""
        self._deadline_s = None

    # --- what ends an exchange --------------------------------------------------------------------

    def look(self, now_s: float) -> None:
        """End `stay` if the upstream is overdue; wait for the client's leaving, if that counts and would come next."""
        if self._deadline_s is not None and now_s >= self._deadline_s:
            self.overdue = True
            self.give_up(f"the upstream was silent for {self._silence_s:g} s")
        elif self._is_old and self._watching is None and not self.more and (self.begun or not self._protected):
            self._watching = self._loop.create_task(self._watch())
        self._is_old = True

    def give_up(self, reason: str) -> None:
        """End `stay`, for a reason that is not the client's."""
        self._deadline_s = None
        if self._end_stay():
            self.given_up = reason

    def end(self) -> None:
        """The exchange is over."""
        self._deadline_s = None
        if self._watching is not None:
            self._watching.cancel()

    async def _watch(self) -> None:
        """End `stay` when it leaves unanswered. The door says that only to a handler that is overdue."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self.answered:
            self._end_stay()

    def _end_stay(self) -> bool:
        """End `stay`; false if it ends already, of something else."""
        try:
            self.stay.reschedule(0)
        except RuntimeError:
            return False
        return True


class Watch:
    """Looks at all exchanges, by one timer, as long as there are any."""

    def __init__(self) -> None:
        self._clients: set[Client] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, client: Client) -> None:
        """An exchange begins."""
        self._clients.add(client)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_MOMENT_S, self._look)

    def end(self, client: Client) -> None:
        """It is over."""
        self._clients.discard(client)
        client.end()

    def give_up(self, reason: str) -> None:
        """End all exchanges."""
        for client in self._clients:
            client.give_up(reason)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        for client in self._clients:
            client.look(now_s)
        self._timer = loop.call_later(_MOMENT_S, self._look) if self._clients else None
