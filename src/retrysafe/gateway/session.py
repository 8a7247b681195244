"""The aiohttp session that carries requests to the upstream, and what it must be made to say.

aiohttp speaks HTTP. It does not say whether a request was sent, it sends some again by itself, and it takes
bytes for an answer that came before the question. Two hooks of its public interface mend that: a connector that
gives away only connections that stand, and says when there is none; and a response that ends what fails after that.
"""

from __future__ import annotations

import os
import select
import ssl
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from retrysafe.errors import RetrysafeError

if TYPE_CHECKING:
    import asyncio

    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

# Answers carry long fields, security policies and cookies above all; one that is cut off would make an
# outcome unknown.
FIELD_BYTES_MAX = 64 << 10
FIELDS_MAX = 128

# Twice as much, and one read of the socket, is read ahead of the client.
_AHEAD_BYTES_MAX = 64 << 10

# More connections than this are not tried one after the other for one request.
_SPOILT_MAX = 16


class UpstreamUnreachable(RetrysafeError):
    """No connection to the upstream: nothing was sent."""


class UpstreamFailed(RetrysafeError):
    """The request may have reached the upstream, and no usable answer came back."""


def open_session(*, tls: bool, connect_timeout_s: float, keepalive_s: float) -> aiohttp.ClientSession:
    """A session on the running loop, for requests that are handed on as they came.

    A request with it raises `UpstreamUnreachable` if there was no connection, and `UpstreamFailed` for whatever
    else goes wrong until the head of the answer is there. It is sent once at most.

    Args:
        tls: whether the upstream is reached over TLS. Its certificate and its name are verified, by the authorities
            that the system trusts when the session is opened.
        connect_timeout_s: how long a connection may take to be made.
        keepalive_s: how long an idle connection is kept; 0 keeps none.
    """
    idle: dict[str, Any] = {"keepalive_timeout": keepalive_s} if keepalive_s else {"force_close": True}
    return aiohttp.ClientSession(
        # every connection here belongs to one of a client's, so their number is bounded there
        connector=_Connector(limit=0, ssl=_tls_context() if tls else True, **idle),
        # the rest of the time is kept by `presence`, for all requests at once
        timeout=aiohttp.ClientTimeout(total=None, connect=connect_timeout_s, ceil_threshold=float("inf")),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        auto_decompress=False,
        trust_env=False,
        read_bufsize=_AHEAD_BYTES_MAX,
        max_line_size=FIELD_BYTES_MAX,
        max_field_size=FIELD_BYTES_MAX,
        max_headers=FIELDS_MAX,
        response_class=Answer,
    )


def _tls_context() -> ssl.SSLContext:
    """Certificates and names are verified; nothing but HTTP/1.1 is offered."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class Answer(aiohttp.ClientResponse):
    """An answer that says that its request may have been sent, and whether it came to its end."""

    _line: ResponseHandler | None = None
    _transport: asyncio.Transport | None = None

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        """Wait for the head.

        What fails now fails as `UpstreamFailed`. That also keeps aiohttp from sending the request again on a
        new connection: it does that for its own exceptions only, and only these know what they mean.
        """
        self._line, self._transport = connection.protocol, connection.transport  # it forgets them at its end
        try:
            return await super().start(connection)
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamFailed(f"the upstream did not answer ({reason(error)})") from error

    def close(self) -> None:
        """End what did not come to its end, and its connection; a connection that was given back is left alone.

        At once if there is half a request on it: its peer may never read the rest.
        """
        if self._transport is not None:
            if self.connection is None and not self._transport.is_closing():
                return
            if self._transport.get_write_buffer_size():
                self._transport.abort()
        super().close()

    @property
    def was_reset(self) -> bool:
        """Whether a content that ends with its connection ended with a reset, which is no end.

        aiohttp takes both for the end (RFC 9112 8).
        """
        if self._line is None or not isinstance(self._line.exception(), OSError):
            return False
        return not (
            self.method == "HEAD"
            or self.status in (204, 304)
            or "Content-Length" in self.headers
            or "chunked" in self.headers.get("Transfer-Encoding", "").lower()
        )


class _Connector(aiohttp.TCPConnector):
    """Gives away connections that stand, and on which the upstream said nothing unasked."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        # What asks the system about a connection. One that is here was used before.
        self._readable: WeakKeyDictionary[ResponseHandler, select.poll] = WeakKeyDictionary()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own signature
    ) -> Connection:
        """A connection for one request.

        Raises:
            UpstreamUnreachable: there is none, and none can be made.
        """
        for _ in range(_SPOILT_MAX):
            try:
                connection = await super().connect(req, traces, timeout)
            except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: a host that no resolver takes
                raise UpstreamUnreachable(f"no connection to the upstream ({reason(error)})") from error
            if self._is_good(connection):
                return connection
            if connection.transport is not None:
                connection.transport.abort()
            connection.close()
        raise UpstreamUnreachable("the upstream speaks before it is asked")

    def _is_good(self, connection: Connection) -> bool:
        line, transport = connection.protocol, connection.transport
        if line is None or transport is None or not line.is_connected() or line.should_close:
            return False
        readable = self._readable.get(line)
        if readable is None:
            self._readable[line] = readable = select.poll()
            readable.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
            return True
        return not (readable.poll(0) or transport.get_write_buffer_size() or _is_in_the_middle(line))


def _is_in_the_middle(line: ResponseHandler) -> bool:
    """Whether an idle connection has begun to say something; a version of aiohttp that cannot tell says no."""
    parser = getattr(line, "_parser", None)
    try:
        return parser is not None and parser.feed_eof() is not None
    except HttpProcessingError:
        return True


def reason(error: Exception) -> str:
    """What an error says, without what it was about. The numbers of TLS are not the system's."""
    number = None if isinstance(error, aiohttp.ClientSSLError) else getattr(error, "errno", None)
    return os.strerror(number) if isinstance(number, int) and number > 0 else type(error).__name__
