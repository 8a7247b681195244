"""Whether the gateway lives and is ready, on a listener of its own, where it can shadow no path of the upstream."""

from __future__ import annotations

import asyncio

from retrysafe.errors import StoreError
from retrysafe.protocol.transitions import Read
from retrysafe.server.handling import Receive, Send
from retrysafe.server.scope import Connection
from retrysafe.stores.contract import Store

_STORE_PATIENCE_S = 2.0
_NO_RECORD = bytes(32)


class Health:
    """Answers `/livez` and `/readyz`. The upstream is not asked: without it replays still work.

    Args:
        store: that requests cannot be served without; None if they can.

    Attributes:
        draining: the gateway is shutting down, and balancers should send requests elsewhere.
    """

    def __init__(self, store: Store | None) -> None:
        self._store = store
        self.draining = False

    async def __call__(self, connection: Connection, _: Receive, send: Send) -> None:
        """One ASGI connection."""
        status, words = await self._answer(connection["path"])
        content = words.encode() + b"\n"
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(content)),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _answer(self, path: str) -> tuple[int, str]:
        if path == "/livez":
            return 200, "alive"
        if path != "/readyz":
            return 404, "here are /livez and /readyz"
        if self.draining:
            return 503, "shutting down"
        if self._store is None:
            return 200, "ready"
        try:
            async with asyncio.timeout(_STORE_PATIENCE_S):
                await self._store.submit(Read(_NO_RECORD))
        except TimeoutError:
            return 503, "the store does not answer in time"
        except StoreError:
            return 503, "the store cannot be reached"
        return 200, "ready"
