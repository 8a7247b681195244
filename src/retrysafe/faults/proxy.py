"""A proxy that stands between a client and a server and makes faults happen.

It reads so much of the protocol as to tell exchanges from each other: HTTP/1.1, PostgreSQL or Redis, whichever the
address of the server says.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Self, assert_never
from urllib.parse import urlsplit

from retrysafe.errors import ConfigurationError
from retrysafe.faults.fault import (
    BlackHole,
    CutRequest,
    CutResponse,
    Delay,
    DeliverTwice,
    Fault,
    Leave,
    LoseResponse,
    Nothing,
    Reset,
    Silence,
    Slow,
    name_of,
)
from retrysafe.faults.http import Http
from retrysafe.faults.plan import Plan
from retrysafe.faults.postgres import Postgres
from retrysafe.faults.redis import Redis
from retrysafe.faults.wire import HEAD_BYTES_MAX, PIECE_BYTES_MAX, Owed, Piece, Request, Wire

_COPY_S_MAX = 60.0
_LINGER_NOT = struct.pack("ii", 1, 0)
_ENDS = (OSError, EOFError, ValueError, asyncio.LimitOverrunError)  # how a connection ends, or talks something else
_WIRES: dict[str, tuple[type[Wire], int]] = {
    "http": (Http, 80),
    "https": (Http, 443),
    "postgres": (Postgres, 5432),
    "postgresql": (Postgres, 5432),
    "redis": (Redis, 6379),
}

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Faults = Fault | Plan | Callable[[int], Fault]


class ChaosProxy:
    """Listens on a loopback port; an asynchronous context.

    Args:
        upstream: the URL of the server; with https the proxy speaks TLS to it, and the client none to the proxy. If
            there are several, connections go to each in turn.
        faults: one fault for every exchange, a plan, or a function of the number of the exchange.
        host: where to listen.
        port: where to listen; 0 is any that is free.
        tell: called with the number of each exchange and its fault, before it happens.

    Attributes:
        port: where it listens.
        met: how many exchanges there were so far of each kind of fault.

    Raises:
        ConfigurationError: the URL is none that the proxy can carry.
    """

    def __init__(
        self,
        upstream: str | Sequence[str],
        faults: Faults,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tell: Callable[[int, Fault], None] = lambda _number, _fault: None,
    ) -> None:
        self._upstreams = [Upstream(url) for url in ([upstream] if isinstance(upstream, str) else upstream)]
        self._fault = _function(faults)
        self._tell = tell
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._connections = 0
        self.met: Counter[str] = Counter()
        self.host, self.port = host, port

    async def __aenter__(self) -> Self:
        """Start to listen."""
        self._server = await asyncio.start_server(self._accept, self.host, self.port, limit=HEAD_BYTES_MAX)
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
        upstream = self._upstreams[self._connections % len(self._upstreams)]
        self._connections += 1
        task = asyncio.get_running_loop().create_task(self._serve((reader, writer), upstream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.close())  # also of one that is cancelled before its first step

    async def _serve(self, client: Streams, upstream: Upstream) -> None:
        try:
            server = await upstream.connect()
        except OSError:
            return
        await Session(client, server, upstream, self._next).run()

    def _next(self) -> Fault:
        number = self.met.total()
        fault = self._fault(number)
        self.met[name_of(fault)] += 1
        self._tell(number, fault)
        return fault


class Upstream:
    """A server.

    Args:
        url: of it; its path means nothing.

    Raises:
        ConfigurationError: the proxy cannot carry it.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in _WIRES or not parts.hostname:
            known = ", ".join(f"{scheme}://HOST:PORT" for scheme in _WIRES)
            raise ConfigurationError([f"{url!r} is no address that can be carried: write HOST:PORT, or {known}"])
        kind, default_port = _WIRES[parts.scheme]
        self.wire = kind()
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host, self._port = parts.hostname, parts.port or default_port

    async def connect(self) -> Streams:
        """A connection to it."""
        return await asyncio.open_connection(self._host, self._port, ssl=self._tls, limit=HEAD_BYTES_MAX)


class Session:
    """One connection of a client, with the server's beside it.

    Args:
        client, server: both ends.
        upstream: for a second connection to the server.
        next_fault: the fault of the next exchange.
    """

    def __init__(self, client: Streams, server: Streams, upstream: Upstream, next_fault: Callable[[], Fault]) -> None:
        self._client, self._server = client, server
        self._upstream = upstream
        self._wire: Wire = upstream.wire
        self._next = next_fault
        self._owed: deque[Owed] = deque()
        self._copies: list[asyncio.Task[None]] = []
        self._is_silent = False  # the client waits in vain, even if the server goes away

    async def run(self) -> None:
        """Carry both ways until one side is gone, or a fault ends it."""
        loop = asyncio.get_running_loop()
        ways = [loop.create_task(self._ask()), loop.create_task(self._answer())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if self._is_silent:
                await asyncio.wait(ways[:1])
        finally:
            self._client[1].close()
            self._server[1].close()
            for way in ways:
                way.cancel()
            ended = await asyncio.gather(*ways, return_exceptions=True)
        try:
            if self._copies:
                await asyncio.wait(self._copies, timeout=_COPY_S_MAX)
        finally:
            for copy in self._copies:
                copy.cancel()
        for error in ended:
            if isinstance(error, Exception) and not isinstance(error, _ENDS):
                raise error

    # --- to the server ----------------------------------------------------------------------------

    async def _ask(self) -> None:
        async for request in self._wire.requests(self._client[0]):
            if request.refusal:
                await self._give(request.refusal)
                continue
            fault = self._next() if request.meets_fault else Nothing()
            if request.is_answered:
                self._owed.append(Owed(request, fault))
            if not await self._deliver(request, fault):
                return

    async def _deliver(self, request: Request, fault: Fault) -> bool:
        """Pass a request on, as its fault has it; whether the connection goes on."""
        match fault:
            case CutRequest(at_byte):
                await self._send(request.content[:at_byte])
                return False
            case BlackHole():
                self._is_silent = True
                await self._until_the_client_leaves()
                return False
            case Delay(delay_ms):
                await asyncio.sleep(delay_ms / 1_000)
                await self._send(request.content)
            case Leave(after_ms):
                await self._send(request.content)
                await asyncio.sleep(after_ms / 1_000)
                return False
            case Reset():
                await self._send(request.content)
                _reset(self._client[1])
                _reset(self._server[1])
                return False
            case DeliverTwice():
                second = await self._upstream.connect()
                self._copies.append(asyncio.get_running_loop().create_task(_forget(second)))
                await self._send(request.content)
                await _write(second[1], request.content)
            case Nothing() | LoseResponse() | CutResponse() | Silence() | Slow():
                self._is_silent = isinstance(fault, Silence)
                await self._send(request.content)
            case _:
                assert_never(fault)
        return True

    async def _send(self, content: bytes) -> None:
        await _write(self._server[1], content)

    async def _until_the_client_leaves(self) -> None:
        while await self._client[0].read(PIECE_BYTES_MAX):
            pass

    # --- to the client ----------------------------------------------------------------------------

    async def _answer(self) -> None:
        async for piece in self._wire.answers(self._server[0], self._owed):
            if not self._owed:
                await self._give(piece.content)
            elif not await self._pass(self._owed[0], piece):
                return
            if piece.is_last and self._owed:
                self._owed.popleft()

    async def _pass(self, owed: Owed, piece: Piece) -> bool:
        """Pass a piece of an answer on, as the fault of its exchange has it; whether the connection goes on."""
        match owed.fault:
            case LoseResponse():
                return not (piece.is_last or self._wire.acts_at_first_byte)
            case Silence() | Leave():
                return True
            case CutResponse(at_byte):
                wanted = piece.content[: at_byte - owed.given_bytes]
                owed.given_bytes += len(wanted)
                await self._give(wanted)
                return owed.given_bytes < at_byte
            case Slow(piece_bytes, pause_ms):
                for start in range(0, len(piece.content), piece_bytes):
                    await self._give(piece.content[start : start + piece_bytes])
                    await asyncio.sleep(pause_ms / 1_000)
            case _:
                await self._give(piece.content)
        return True

    async def _give(self, content: bytes) -> None:
        await _write(self._client[1], content)


async def _write(writer: asyncio.StreamWriter, content: bytes) -> None:
    if writer.transport.is_closing():  # of which uvloop makes an error of its own
        raise ConnectionResetError
    writer.write(content)
    await writer.drain()


async def _forget(second: Streams) -> None:
    """Wait until a second copy is at work or refused, and take no notice of its answer."""
    try:
        with suppress(*_ENDS):
            await second[0].read(1)
    finally:
        second[1].close()


def _function(faults: Faults) -> Callable[[int], Fault]:
    if isinstance(faults, Plan):
        return faults.fault
    return faults if callable(faults) else lambda _: faults


def _reset(writer: asyncio.StreamWriter) -> None:
    """Go away as a host does that lost its memory: what is under way is dropped, the other side gets an RST."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    writer.transport.abort()
