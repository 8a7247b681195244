"""The application that everything is compared with: raw ASGI, no framework, a handler that does nothing.

It reads the content of a POST and answers 201 with 200 bytes of JSON. GET answers how many times the
handler ran, so that a run can prove that first requests ran it and replays did not. A POST to /slow takes
50 ms, so that duplicates meet a first request that is still in flight.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

SLOW_PATH, SLOW_S = "/slow", 0.05
ANSWER_BYTES = int(os.environ.get("BENCH_ANSWER_BYTES", "200"))


def padded(document: dict[str, Any], size_bytes: int) -> bytes:
    """The document as JSON of exactly that size: its member `note` is filled up with dots."""
    room = size_bytes - len(json.dumps(document | {"note": ""}))
    content = json.dumps(document | {"note": "." * room}).encode()
    assert len(content) == size_bytes, f"{len(content)} bytes, wanted {size_bytes}"
    return content


ANSWER = padded({"id": "ch_3MmlLrLkdIwHu7ix0snN0B15", "amount": 1250, "currency": "eur", "paid": True}, ANSWER_BYTES)


class Bare:
    """The application. `runs` counts how often its handler was entered."""

    def __init__(self) -> None:
        self.runs = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request, or the life of the server."""
        if scope["type"] == "lifespan":
            await live(receive, send)
        elif scope["method"] == "GET":
            await self._answer(send, 200, str(self.runs).encode())
        else:
            await self._charge(scope, receive, send)

    async def _charge(self, scope: Message, receive: Receive, send: Send) -> None:
        self.runs += 1
        while (await receive()).get("more_body", False):
            pass
        if scope["path"] == SLOW_PATH:
            await asyncio.sleep(SLOW_S)
        await self._answer(send, 201, ANSWER)

    @staticmethod
    async def _answer(send: Send, status: int, content: bytes) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})


async def live(receive: Receive, send: Send) -> None:
    """The life of a server, in which there is nothing to do."""
    while True:
        phase = (await receive())["type"]
        await send({"type": f"{phase}.complete"})
        if phase == "lifespan.shutdown":
            return


def bare() -> App:
    """The application alone, for `uvicorn --factory`."""
    return Bare()
