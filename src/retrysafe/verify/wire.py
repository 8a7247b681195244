"""A client that sends exactly the bytes it is told to.

A library would not send a malformed field, hold back the last byte of twenty requests and then release them
together, or tell at which byte a connection broke; these are what a verifier is about. h11 reads the answers.
Each request has a connection of its own. HTTP/2 alone goes through httpx2.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import h11
import httpx2

from retrysafe.verify.message import Answer, Fields, Sent

_BODY_BYTES_MAX = 64 * 1024 * 1024
_PIECE_BYTES = 65_536
_HEAD_BYTES_MAX = 256 * 1024


class Starter:
    """Holds the last byte of several requests back and lets them go together.

    Args:
        width: how many requests there are.
    """

    def __init__(self, width: int) -> None:
        self._missing = width
        self._go = asyncio.Event()

    async def wait(self) -> None:
        """Wait until every request has come this far."""
        self.leave()
        await self._go.wait()

    def leave(self) -> None:
        """One request less is waited for: it has come this far, or never will."""
        self._missing -= 1
        if self._missing <= 0:
            self._go.set()


@dataclass(frozen=True, slots=True)
class Wire:
    """How to get at the target.

    Attributes:
        timeout_s: the longest that one exchange may take.
        via_port: of a proxy on the loopback that every connection goes through; None goes straight.
    """

    timeout_s: float = 30.0
    via_port: int | None = None

    async def exchange(self, sent: Sent, starter: Starter | None = None) -> Answer:
        """Send one request and read its answer; a connection that breaks gives an answer with status 0."""
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self._exchange(sent, starter)
        except (OSError, TimeoutError):
            return Answer()

    async def _exchange(self, sent: Sent, starter: Starter | None) -> Answer:
        try:
            reader, writer = await self._connect(sent.url)
        except OSError:
            if starter:
                starter.leave()
            raise
        try:
            content = request_bytes(sent)
            if starter:
                writer.write(content[:-1])
                await writer.drain()
                await starter.wait()
                content = content[-1:]
            began_s = time.monotonic()
            with suppress(ConnectionError):  # a server that refuses early may close; its answer is still to be read
                writer.write(content)
                await writer.drain()
            return await _read(reader, sent.method, began_s)
        finally:
            writer.transport.abort()

    async def _connect(self, url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        parts = urlsplit(url)
        if self.via_port is not None:
            return await asyncio.open_connection("127.0.0.1", self.via_port, limit=_HEAD_BYTES_MAX)
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        port = parts.port or (443 if tls else 80)
        return await asyncio.open_connection(parts.hostname, port, ssl=tls, limit=_HEAD_BYTES_MAX)

    async def leave(self, sent: Sent, at_byte: int | None, after_s: float = 0.0) -> None:
        """Send a request, or only its first bytes, and go away.

        Args:
            sent: the request.
            at_byte: how many bytes of the content are sent; None sends all.
            after_s: how long the connection stays open behind the last byte.
        """
        content = request_bytes(sent)
        reader, writer = await self._connect(sent.url)
        try:
            writer.write(content if at_byte is None else content[: len(content) - len(sent.body) + at_byte])
            await writer.drain()
            with suppress(TimeoutError):
                async with asyncio.timeout(after_s):
                    await reader.read(1)
        finally:
            writer.transport.abort()


def request_bytes(sent: Sent) -> bytes:
    """A request as it goes over the wire."""
    lines = [f"{sent.method} {sent.target} HTTP/1.1", f"Host: {urlsplit(sent.url).netloc.rpartition('@')[2]}"]
    lines += [f"{name}: {value}" for name, value in sent.headers]
    if sent.trailers:
        lines += ["Transfer-Encoding: chunked", f"Trailer: {', '.join(name for name, _ in sent.trailers)}"]
        content = b"%x\r\n%s\r\n0\r\n" % (len(sent.body), sent.body) + _lines(sent.trailers) + b"\r\n"
    else:
        if sent.body or sent.method not in {"GET", "HEAD", "OPTIONS", "DELETE"}:
            lines.append(f"Content-Length: {len(sent.body)}")
        content = sent.body
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + content


def _lines(fields: Fields) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in fields).encode("latin-1")


async def _read(reader: asyncio.StreamReader, method: str, began_s: float) -> Answer:
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES_MAX)
    parser.send(h11.Request(method=method, target="/", headers=[("Host", "here")]))
    parser.send(h11.EndOfMessage())
    read = _Read()
    try:
        while not read.whole and len(read.body) < _BODY_BYTES_MAX:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                parser.receive_data(await reader.read(_PIECE_BYTES))
            elif not read.take(cast("h11.Event", event)):
                break
    except (h11.RemoteProtocolError, ConnectionError):
        read.whole = False
    return Answer(read.status, tuple(read.headers), bytes(read.body), read.whole, began_s, time.monotonic())


@dataclass(slots=True)
class _Read:
    """What has come of an answer so far."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False

    def take(self, event: h11.Event) -> bool:
        """Take in one more event; False if nothing more can come."""
        match event:
            case h11.Response():
                self.status = event.status_code
                self.headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers]
            case h11.Data():
                self.body += event.data
            case h11.EndOfMessage():
                self.whole = True
            case h11.ConnectionClosed():
                return False
        return True


async def exchange_http2(sent: Sent, timeout_s: float) -> Answer | None:
    """The same request over HTTP/2; None if the target does not speak it."""
    try:
        async with httpx2.AsyncClient(http1=False, http2=True, timeout=timeout_s, trust_env=False) as client:
            got = await client.request(sent.method, sent.url, headers=list(sent.headers), content=sent.body)
    except httpx2.HTTPError:
        return None
    headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in got.headers.raw)
    return Answer(got.status_code, headers, got.content, whole=True)
