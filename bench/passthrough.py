"""What the gateway is compared with: a plain streaming pass-through of the same libraries.

uvicorn in front, one aiohttp session behind, header fields handed on as they came, content handed on as
it comes, and nothing else. It keeps no record of anything.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from multidict import CIMultiDict
from yarl import URL

from bench.bare import App, Message, Receive, Send

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_ADDED_BY_AIOHTTP = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class PassThrough:
    """An ASGI application that hands every request on to `upstream`, `http://host:port`."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._session: ClientSession

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request, or the life of the server."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._forward(scope, receive, send)

    async def _forward(self, scope: Message, receive: Receive, send: Send) -> None:
        query = f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else ""
        url = URL(f"{self._upstream}{scope['raw_path'].decode('latin-1')}{query}", encoded=True)
        fields = CIMultiDict(
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in scope["headers"]
            if name not in HOP_BY_HOP
        )
        content = await _content(receive)
        async with self._session.request(
            scope["method"], url, headers=fields, data=content, allow_redirects=False
        ) as answer:
            headers = [(name.lower(), value) for name, value in answer.raw_headers if name.lower() not in HOP_BY_HOP]
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            async for chunk in answer.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with ClientSession(
            connector=TCPConnector(limit=0),
            cookie_jar=DummyCookieJar(),
            timeout=ClientTimeout(total=None),
            skip_auto_headers=_ADDED_BY_AIOHTTP,
            auto_decompress=False,
        ) as self._session:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


async def _content(receive: Receive) -> bytes | AsyncIterator[bytes]:
    """The content whole if it came in one message, else piece by piece as it comes."""
    message = await receive()
    if not message.get("more_body", False):
        return bytes(message.get("body", b""))
    return _pieces(message, receive)


async def _pieces(message: Message, receive: Receive) -> AsyncIterator[bytes]:
    while True:
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return
        message = await receive()


def passthrough() -> App:
    """The pass-through to `BENCH_UPSTREAM`, for `uvicorn --factory`."""
    return PassThrough(os.environ["BENCH_UPSTREAM"])
