"""Where the upstream is, and how a connection to it is made."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohappyeyeballs

P = TypeVar("P", bound=asyncio.BaseProtocol)

_PORTS = {"http": 80, "https": 443}

# As long as aiohttp keeps what a resolver said, and as RFC 8305 5 waits for one address before it tries the next.
_RESOLVED_S = 10.0
_NEXT_ADDRESS_S = 0.25


class Address:
    """One host and port.

    A connection is tried to each of the host's addresses, in both families (RFC 8305). What the resolver
    said holds for a few seconds, and is asked for once by however many connections want it.

    Args:
        origin: `http://host:port` or `https://host:port`.

    Attributes:
        host_field: the host as a `Host` field names it (RFC 9110 7.2).
    """

    def __init__(self, origin: str) -> None:
        self._parts = urlsplit(origin)
        self.host_field = self._parts.netloc.removesuffix(f":{_PORTS[self._parts.scheme]}").encode()
        self._tls = _tls_context() if self._parts.scheme == "https" else None
        self._resolving = asyncio.Lock()
        self._resolved: list[Any] = []
        self._resolved_until_s = 0.0

    @property
    def host(self) -> str:
        """Name or address, an IPv6 address without brackets."""
        return self._parts.hostname or ""

    @property
    def port(self) -> int:
        """The port, or the one of the scheme.

        Raises:
            ValueError: it is no number that a port can have.
        """
        return self._parts.port or _PORTS[self._parts.scheme]

    async def connect(self, protocol: Callable[[], P]) -> P:
        """Make a connection.

        Raises:
            OSError: it was refused, the name has no address, or TLS failed.
            ValueError: the host or the port can be none.
        """
        loop = asyncio.get_running_loop()
        addresses = await self._addresses(loop)
        connected = await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=_NEXT_ADDRESS_S, interleave=1, loop=loop
        )
        name = self.host.rstrip(".") if self._tls else None
        _, made = await loop.create_connection(protocol, sock=connected, ssl=self._tls, server_hostname=name)
        return made

    async def _addresses(self, loop: asyncio.AbstractEventLoop) -> list[Any]:
        async with self._resolving:
            if loop.time() >= self._resolved_until_s:
                self._resolved = await loop.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
                self._resolved_until_s = loop.time() + _RESOLVED_S
            return self._resolved


def _tls_context() -> ssl.SSLContext:
    """Certificates and names are verified; nothing but HTTP/1.1 is offered."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
