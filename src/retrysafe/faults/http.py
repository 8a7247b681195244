"""HTTP/1.1, with connections that carry many requests. Upgrades to other protocols are not carried."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from retrysafe.faults.wire import PIECE_BYTES_MAX, Owed, Piece, Request

_CONTENT_BYTES_MAX = 64 * 1024 * 1024
_TOO_LARGE = "a request of more than 64 MiB"
_HEAD_END = b"\r\n\r\n"


class Http:
    """HTTP/1.1."""

    acts_at_first_byte = True

    async def requests(self, client: asyncio.StreamReader) -> AsyncIterator[Request]:
        """One after the other, each with its whole content, or what came of it before the client left."""
        while True:
            content = await read_request(client)
            yield Request(content, is_bodyless=content.startswith(b"HEAD "))

    async def answers(self, server: asyncio.StreamReader, owed: deque[Owed]) -> AsyncIterator[Piece]:
        """Heads, and content as it comes."""
        while True:
            head = await server.readuntil(_HEAD_END)
            status = head[9:12]
            if status.startswith(b"1"):
                yield Piece(head, is_last=False)
            elif status in {b"204", b"304"} or (owed and owed[0].request.is_bodyless):
                yield Piece(head, is_last=True)
            else:
                async for piece in _content(server, head):
                    yield piece


async def _content(server: asyncio.StreamReader, head: bytes) -> AsyncIterator[Piece]:
    fields = _fields(head)
    if _is_chunked(fields):
        yield Piece(head, is_last=False)
        async for chunk in _chunks(server):
            yield chunk
    elif (length := fields.get(b"content-length", b"")).isdigit():
        yield Piece(head, is_last=not int(length))
        left_bytes = int(length)
        while left_bytes:
            piece = await server.read(min(left_bytes, PIECE_BYTES_MAX))
            if not piece:
                return
            left_bytes -= len(piece)
            yield Piece(piece, is_last=not left_bytes)
    else:
        yield Piece(head, is_last=False)
        while piece := await server.read(PIECE_BYTES_MAX):
            yield Piece(piece, is_last=False)
        yield Piece(b"", is_last=True)


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """One whole HTTP/1.1 request, or what came of it before the client left."""
    head = await reader.readuntil(_HEAD_END)
    fields = _fields(head)
    if _is_chunked(fields):
        return await _joined(head, _chunks(reader))
    length = fields.get(b"content-length", b"0")
    size = int(length) if length.isdigit() else 0
    if size > _CONTENT_BYTES_MAX:
        raise ValueError(_TOO_LARGE)
    try:
        return head + await reader.readexactly(size)
    except asyncio.IncompleteReadError as left:
        return head + left.partial


def _fields(head: bytes) -> dict[bytes, bytes]:
    return {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
    }


def _is_chunked(fields: dict[bytes, bytes]) -> bool:
    return fields.get(b"transfer-encoding", b"").lower().endswith(b"chunked")


async def _joined(content: bytes, chunks: AsyncIterator[Piece]) -> bytes:
    async for chunk in chunks:
        content += chunk.content
        if len(content) > _CONTENT_BYTES_MAX:
            raise ValueError(_TOO_LARGE)
    return content


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[Piece]:
    """Chunks as they come; the last piece is the end, with its trailers."""
    while True:
        line = await reader.readline()
        size = int(line.partition(b";")[0], 16)
        if size == 0:
            break
        yield Piece(line + await reader.readexactly(size + 2), is_last=False)
    while True:
        trailer = await reader.readline()
        line += trailer
        if trailer in {b"\r\n", b""}:
            break
    yield Piece(line, is_last=True)
