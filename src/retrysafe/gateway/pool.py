"""The connections to the upstream: who has one, and which wait for their next request."""

from __future__ import annotations

import asyncio

from retrysafe.errors import RetrysafeError
from retrysafe.gateway.address import Address
from retrysafe.gateway.link import Link, UpstreamFailed, reason


class UpstreamUnreachable(RetrysafeError):
    """No connection to the upstream: nothing was sent."""


class Pool:
    """Makes connections, and keeps those that are good for another request.

    Their number has no limit of its own: each belongs to a request of a client's connection.

    Args:
        address: of the upstream.
        silence_s: how long the upstream may be silent.
        connect_timeout_s: how long a connection may take to be made.
        keepalive_s: how long an idle connection is kept; 0 keeps none.
    """

    def __init__(self, address: Address, *, silence_s: float, connect_timeout_s: float, keepalive_s: float) -> None:
        self._address = address
        self._silence_s = silence_s
        self._connect_timeout_s = connect_timeout_s
        self.keepalive_s = keepalive_s
        self._loop = asyncio.get_running_loop()
        self._busy: set[Link] = set()
        self._idle: dict[Link, float] = {}  # to when it became idle, the latest at the end
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    async def take(self) -> Link:
        """A connection that is good for a request: the one that became idle last, or a new one.

        Raises:
            UpstreamUnreachable: there is none, and none can be made.
        """
        link = self._kept() or await self._connected()
        if self._closed:
            link.close()
            raise UpstreamUnreachable("the gateway is shutting down")
        self._busy.add(link)
        return link

    def give_back(self, link: Link) -> None:
        """The exchange is over, well or not."""
        self._busy.discard(link)
        if not (link.reusable and self.keepalive_s and not self._closed):
            link.close()
            return
        self._idle[link] = self._loop.time()
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(self.keepalive_s, self._sweep)

    def close(self) -> None:
        """End every connection; who waits for an answer is told that none came. Safe to repeat."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for link in list(self._idle):
            link.close()
        for link in list(self._busy):
            link.fail(UpstreamFailed("the gateway shut down before the upstream answered"))

    def _kept(self) -> Link | None:
        while self._idle:
            link, since_s = self._idle.popitem()
            if link.quiet and self._loop.time() - since_s < self.keepalive_s:
                return link
            link.close()
        return None

    async def _connected(self) -> Link:
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                link = await self._address.connect(lambda: Link(self._silence_s, self._forget))
        except (OSError, ValueError) as error:
            raise UpstreamUnreachable(f"no connection to the upstream ({reason(error)})") from error
        if not link.fresh:
            link.close()
            raise UpstreamUnreachable("the upstream speaks before it is asked")
        return link

    def _forget(self, link: Link) -> None:
        self._idle.pop(link, None)

    def _sweep(self) -> None:
        """End connections that were idle for long enough; the first is the oldest."""
        self._sweeper = None
        for link, since_s in list(self._idle.items()):
            left_s = since_s + self.keepalive_s - self._loop.time()
            if left_s > 0:
                self._sweeper = self._loop.call_later(left_s, self._sweep)
                return
            del self._idle[link]
            link.close()
