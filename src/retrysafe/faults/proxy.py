"""A proxy that stands between a client and a server and makes faults happen.

It knows so much of HTTP/1.1 as to tell where a request ends, which is what a fault is about: before that
byte nothing can have happened, behind it everything can. Each connection carries one request; one that brings none, as
browsers open them in advance, meets no fault.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Self, assert_never
from urllib.parse import urlsplit

from retrysafe.faults.fault import (
    CutRequest,
    CutResponse,
    DeliverTwice,
    Fault,
    Leave,
    LoseResponse,
    Nothing,
    Reset,
    Slow,
)
from retrysafe.faults.plan import Plan

_PIECE_BYTES_MAX = 65_536
_REQUEST_BYTES_MAX = 64 * 1024 * 1024
_SILENCE_S_MAX = 60.0
_LINGER_NOT = struct.pack("ii", 1, 0)

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class ChaosProxy:
    """Listens on a free loopback port; an asynchronous context.

    Args:
        upstream: the URL of the server; with https the proxy speaks TLS to it, and the client none to the proxy.
        faults: one fault for every connection, a plan, or a function of the number of the connection, counted from 0 as
            their requests come.

    Attributes:
        port: where it listens.
        met: the fault of each connection so far, in the order in which their requests came.
    """

    def __init__(self, upstream: str, faults: Fault | Plan | Callable[[int], Fault]) -> None:
        parts = urlsplit(upstream)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._tls else 80)
        self._fault = _function(faults)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.met: list[Fault] = []
        self.port = 0

    async def __aenter__(self) -> Self:
        """Start to listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop, and end every connection."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve((reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, client: Streams) -> None:
        try:
            with suppress(OSError, EOFError, ValueError, asyncio.LimitOverrunError):
                async with asyncio.timeout(_SILENCE_S_MAX):
                    await self._carry(client)
        finally:
            client[1].close()

    async def _carry(self, client: Streams) -> None:
        request = await read_request(client[0])
        fault = self._fault(len(self.met))
        self.met.append(fault)
        server = await self._connect()
        try:
            server[1].write(request[: fault.at_byte] if isinstance(fault, CutRequest) else request)
            await server[1].drain()
            await self._happen(fault, request, client, server)
        finally:
            server[1].close()

    async def _happen(self, fault: Fault, request: bytes, client: Streams, server: Streams) -> None:
        """What the fault is, once the server has what it gets of the request."""
        match fault:
            case Nothing():
                await _relay(server[0], client[1])
            case CutRequest():
                return
            case LoseResponse():
                await server[0].read(1)
            case CutResponse(at_byte):
                client[1].write(await server[0].readexactly(at_byte))
            case Leave(after_ms):
                await asyncio.sleep(after_ms / 1_000)
            case Reset():
                _reset(client[1])
                _reset(server[1])
            case DeliverTwice():
                await self._twice(request, client, server)
            case Slow(piece_bytes, pause_ms):
                await _relay(server[0], client[1], piece_bytes, pause_ms / 1_000)
            case _:
                assert_never(fault)

    async def _twice(self, request: bytes, client: Streams, server: Streams) -> None:
        second = await self._connect()
        try:
            second[1].write(request)
            await asyncio.gather(_relay(server[0], client[1]), second[0].read(1))
        finally:
            second[1].close()

    async def _connect(self) -> Streams:
        return await asyncio.open_connection(self._host, self._port, ssl=self._tls)


def _function(faults: Fault | Plan | Callable[[int], Fault]) -> Callable[[int], Fault]:
    if isinstance(faults, Plan):
        return faults.fault
    return faults if callable(faults) else lambda _: faults


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """One whole HTTP/1.1 request, or what came of it before the client left."""
    head = await reader.readuntil(b"\r\n\r\n")
    fields = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
    }
    if fields.get(b"transfer-encoding", b"").lower().endswith(b"chunked"):
        return head + await _chunks(reader)
    length = fields.get(b"content-length", b"0")
    size = min(int(length), _REQUEST_BYTES_MAX) if length.isdigit() else 0
    try:
        return head + await reader.readexactly(size)
    except asyncio.IncompleteReadError as left:
        return head + left.partial


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    """Chunked content with its trailers, as it came."""
    content = b""
    while len(content) < _REQUEST_BYTES_MAX:
        line = await reader.readline()
        content += line
        size = int(line.partition(b";")[0] or b"0", 16)
        if size == 0:
            break
        content += await reader.readexactly(size + 2)
    while len(content) < _REQUEST_BYTES_MAX:
        line = await reader.readline()
        content += line
        if line in {b"\r\n", b""}:
            break
    return content


async def _relay(
    source: asyncio.StreamReader,
    sink: asyncio.StreamWriter,
    piece_bytes: int = _PIECE_BYTES_MAX,
    pause_s: float = 0.0,
) -> None:
    while piece := await source.read(piece_bytes):
        sink.write(piece)
        await sink.drain()
        if pause_s:
            await asyncio.sleep(pause_s)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Go away as a host does that lost its memory: what is under way is dropped, the other side gets an RST."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    writer.transport.abort()
