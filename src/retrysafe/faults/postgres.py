"""PostgreSQL's protocol, version 3, without TLS: what passes has to be readable.

A request is what a client sends up to a Query, a Sync or a FunctionCall; its answer ends with ReadyForQuery. The
log-in meets no fault, nor does what is sent between requests: Flush, and the data of COPY.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from retrysafe.faults.wire import Owed, Piece, Request

_NO_TLS = b"N"
_TLS_CODES = frozenset({80_877_103, 80_877_104})  # SSLRequest, GSSENCRequest
_CANCEL_CODE = 80_877_102
_ENDS = frozenset(b"QSF")
_BETWEEN = frozenset(b"HdcfpX")  # Flush, CopyData, CopyDone, CopyFail, passwords, Terminate
_READY = ord("Z")


class Postgres:
    """PostgreSQL."""

    acts_at_first_byte = False

    async def requests(self, client: asyncio.StreamReader) -> AsyncIterator[Request]:
        """The log-in, and then everything up to the next end of a request."""
        while (startup := await _startup(client)) is None:
            yield Request(b"", meets_fault=False, is_answered=False, refusal=_NO_TLS)
        yield Request(startup, meets_fault=False, is_answered=_code(startup) != _CANCEL_CODE)
        content = b""
        while True:
            kind, message = await _message(client)
            content += message
            if kind in _ENDS:
                yield Request(content)
                content = b""
            elif kind in _BETWEEN:
                yield Request(content, meets_fault=False, is_answered=False)
                content = b""

    async def answers(self, server: asyncio.StreamReader, owed: deque[Owed]) -> AsyncIterator[Piece]:  # noqa: ARG002 - its messages tell where an answer ends
        """Message by message."""
        while True:
            kind, message = await _message(server)
            yield Piece(message, is_last=kind == _READY)


async def _startup(client: asyncio.StreamReader) -> bytes | None:
    """The first message, which has no kind; None for a wish to encrypt."""
    head = await client.readexactly(8)
    if _code(head) in _TLS_CODES:
        return None
    return head + await client.readexactly(int.from_bytes(head[:4], "big") - 8)


def _code(startup: bytes) -> int:
    return int.from_bytes(startup[4:8], "big")


async def _message(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The next message, with the byte that says what it is."""
    head = await reader.readexactly(5)
    return head[0], head + await reader.readexactly(int.from_bytes(head[1:], "big") - 4)
