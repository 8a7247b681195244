"""The upstream as an ASGI application, and what became of a request that was sent to it.

A request was *answered*, or *never sent* (no connection: nothing ran, the key is free again), or its
outcome is *unknown* (anything that goes wrong once there is a connection). Nothing is ever sent twice.
"""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from retrysafe.errors import IncompleteResponse, RetrysafeError
from retrysafe.gateway import strict
from retrysafe.gateway.forwarding import Hop, Rules, request_headers, response_headers, states_no_effect
from retrysafe.model import Headers
from retrysafe.operation import Operation, current_operation
from retrysafe.protocol.decision import OUTCOME_UNKNOWN
from retrysafe.protocol.problem import Problem
from retrysafe.server.capture import Message
from retrysafe.server.handling import Receive, Send
from retrysafe.server.scope import Connection

_log = logging.getLogger("retrysafe.gateway")

# Answers carry long fields, security policies and cookies above all; one that is cut off would make an
# outcome unknown.
_FIELD_BYTES_MAX = 64 << 10
_FIELDS_MAX = 500

# Above this aiohttp takes a content in pieces only, because one write would hold up the loop.
_ONE_WRITE_BYTES_MAX = 1 << 20

# More idle connections than this are not tried one after the other.
_SPOILT_MAX = 16

# A repetition of these changes nothing (RFC 9110 9.2.2); for the rest the client must not be told to repeat.
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})

# Of the request that is asked about, not of the question whether its answer may be shown.
_NOT_FOR_AUTHORIZATION = frozenset(
    {b"content-length", b"content-type", b"content-encoding", b"range", b"if-match", b"if-none-match"}
    | {b"if-modified-since", b"if-unmodified-since", b"if-range"}
)


class UpstreamUnreachable(RetrysafeError):
    """No connection to the upstream: nothing was sent."""


class UpstreamFailed(RetrysafeError):
    """The request may have reached the upstream, and no usable answer came back."""


class UpstreamTimeout(UpstreamFailed):
    """The request may have reached the upstream, and it took too long to answer."""


class Upstream:
    """Sends requests to one upstream, and to no other place whatever a request says.

    To be entered as an async context manager on the loop that serves.

    Args:
        origin: `http://host:port` or `https://host:port`.
        rules: about header fields.
        timeout_s: how long the upstream may be silent, before its answer and within it.
        connect_timeout_s: how long a connection may take to be made.
        keepalive_s: how long an idle connection is kept. Short, because an upstream that closes an idle
            connection at the moment when a request is sent on it leaves the outcome of a POST unknown;
            0 makes a new connection for each request.
        problems_url: where the pages of the problem types are.
    """

    def __init__(  # noqa: PLR0913 - each is a setting of its own, by name
        self,
        origin: str,
        *,
        rules: Rules,
        timeout_s: float,
        connect_timeout_s: float,
        keepalive_s: float,
        problems_url: str,
    ) -> None:
        parts = urlsplit(origin)
        # yarl's own authority has lost the brackets of an IPv6 address
        self._scheme, self._authority = parts.scheme, parts.netloc
        self._rules = rules
        self._timeout_s = timeout_s
        # Connecting counts towards the silence and must end first, or what was never sent would look as if it was.
        self._connect_timeout_s = min(connect_timeout_s, 0.9 * timeout_s)
        self._keepalive_s = keepalive_s
        self._problems_url = problems_url

    async def __aenter__(self) -> Self:
        idle: dict[str, Any] = {"keepalive_timeout": self._keepalive_s} if self._keepalive_s else {"force_close": True}
        self._session = aiohttp.ClientSession(
            # every connection here belongs to one of a client's, so their number is bounded there
            connector=aiohttp.TCPConnector(limit=0, **idle),
            timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_timeout_s, ceil_threshold=float("inf")),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            auto_decompress=False,
            trust_env=False,
            max_line_size=_FIELD_BYTES_MAX,
            max_field_size=_FIELD_BYTES_MAX,
            max_headers=_FIELDS_MAX,
            middlewares=(_once,),
            request_class=_Request,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End every connection; who waits for an answer is told that none came. Safe to repeat."""
        await self._session.close()

    async def __call__(self, connection: Connection, receive: Receive, send: Send) -> None:
        """Carry one request to the upstream and its answer back, piece by piece in both directions."""
        operation = current_operation()
        client = _Client(receive, connection["headers"], protected=operation is not None)
        try:
            # A time limit that the watch sets off: the one way to stop this block from another task.
            async with asyncio.timeout(None) as presence:
                watch = asyncio.get_running_loop().create_task(client.watch(presence))
                try:
                    await self._exchange(connection, client, send, operation)
                finally:
                    watch.cancel()
        except TimeoutError:
            _abandon(operation, "nobody waits for the answer any more")

    # --- one exchange -----------------------------------------------------------------------------

    async def _exchange(self, connection: Connection, client: _Client, send: Send, operation: Operation | None) -> None:
        try:
            response = await self._ask(connection, client)
        except UpstreamUnreachable as error:
            _log.warning("%s; nothing was sent", error)
            if operation is not None:
                operation.not_run()
            await self._refuse(UNREACHABLE, client, send)
            return
        except UpstreamFailed as error:
            if client.gone:  # the failure is that there was nothing left to send
                raise IncompleteResponse("the client left before its request was whole") from None
            _log.warning("%s; a %s request may have taken effect", error, connection["method"])
            if operation is not None:
                operation.outcome_unknown()
            await self._refuse(_failure(error, connection["method"], operation), client, send)
            return
        try:
            if operation is not None and states_no_effect(response.raw_headers):
                operation.no_effect()
            await self._relay(response, client, send)
        except UpstreamFailed as error:
            _log.warning("%s", error)
            _abandon(operation, str(error))
        finally:
            response.close()  # leaves a connection alone whose answer was read to its end

    async def _ask(self, connection: Connection, client: _Client) -> aiohttp.ClientResponse:
        """Send the request; return when its answer has begun.

        Raises:
            UpstreamUnreachable: there was no connection.
            UpstreamFailed: there was one.
        """
        headers = request_headers(tuple(connection["headers"]), _hop(connection), self._rules)
        first = await client.piece() if client.more else b""
        content: bytes | AsyncIterator[bytes] | None = first or None
        if not client.more and len(first) <= _ONE_WRITE_BYTES_MAX:
            headers = _without_length(headers) if first else headers
        else:
            content = client.pieces(first, self._timeout_s)
        try:
            async with asyncio.timeout(self._timeout_s) as client.patience:
                response = await self._session.request(
                    connection["method"],
                    self._url(strict.target_of(connection)),
                    headers=_text(headers),
                    data=content,
                    allow_redirects=False,
                )
        except TimeoutError:
            raise UpstreamTimeout(f"the upstream was silent for {self._timeout_s:g} s") from None
        finally:
            client.patience = None
        if fault := strict.answer_fault(response.status, response.raw_headers):
            response.close()
            raise UpstreamFailed(fault)
        return response

    async def _relay(self, response: aiohttp.ClientResponse, client: _Client, send: Send) -> None:
        """Send the answer on, each piece as it comes.

        Raises:
            UpstreamFailed: it ended before its end.
        """
        client.begun.set()
        headers = response_headers(response.raw_headers, response.status, self._rules)
        await send({"type": "http.response.start", "status": response.status, "headers": list(headers)})
        while not client.answered:
            try:
                async with asyncio.timeout(self._timeout_s):
                    piece = await response.content.readany()
            except TimeoutError:
                raise UpstreamTimeout(f"the upstream fell silent for {self._timeout_s:g} s in its answer") from None
            except (aiohttp.ClientError, OSError) as error:
                raise UpstreamFailed(f"the upstream broke off its answer ({type(error).__name__})") from error
            client.answered = response.content.at_eof()
            await send({"type": "http.response.body", "body": piece, "more_body": not client.answered})

    async def _refuse(self, problem: Problem, client: _Client, send: Send) -> None:
        response = problem.response(self._problems_url, uuid.uuid4().urn)
        client.answered = True
        await send({"type": "http.response.start", "status": response.status, "headers": list(response.headers)})
        await send({"type": "http.response.body", "body": response.body})

    def _url(self, target: bytes) -> URL:
        # All of it as the path, so that nothing is parsed, decoded or tidied on the way.
        path = target.decode("ascii")
        try:
            url = URL.build(scheme=self._scheme, authority=self._authority, path=path, encoded=True)
            usable = bool(url.raw_host)  # to ask is what makes yarl look at the authority
        except ValueError:
            usable = False
        if not usable:
            raise UpstreamUnreachable("the upstream has no usable address")
        return url

    # --- may the caller see a stored answer? ------------------------------------------------------

    def authorizer(self, target: str) -> Callable[[Connection], Awaitable[bool]]:
        """A function for the door that asks the upstream: a GET to `target` with the client's fields; 2xx allows.

        The upstream learns what it is asked about from `X-Forwarded-Method` and `X-Forwarded-Uri`.
        """

        async def authorize(connection: Connection) -> bool:
            return await self._authorize(connection, target)

        return authorize

    async def _authorize(self, connection: Connection, target: str) -> bool:
        left_out = _NOT_FOR_AUTHORIZATION | self._rules.keys | {b"x-forwarded-method", b"x-forwarded-uri"}
        headers = [
            (name, value)
            for name, value in request_headers(tuple(connection["headers"]), _hop(connection), self._rules)
            if name not in left_out
        ]
        headers.append((b"x-forwarded-method", connection["method"].encode()))
        headers.append((b"x-forwarded-uri", strict.target_of(connection)))
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._session.get(self._url(target.encode()), headers=_text(headers), allow_redirects=False) as answer,
            ):
                return 200 <= answer.status < 300
        except (TimeoutError, RetrysafeError) as error:
            _log.warning("a replay could not be authorised (%s), so it was refused", error or type(error).__name__)
            return False


class _Client:
    """The client's side of one exchange: its content, whether it is still there, whether it has its answer.

    Attributes:
        more: there is content that was not read yet.
        begun: its leaving counts. For a protected request that is when the answer has begun: until then
            the outcome is worth waiting for, whoever has left.
        gone: it left before its request was whole.
        answered: the last piece of its answer is on its way.
        patience: what limits the wait for the upstream, while there is one.
    """

    def __init__(self, receive: Receive, headers: Headers, *, protected: bool) -> None:
        self._receive = receive
        self._whole = asyncio.Event()
        self.begun = asyncio.Event()
        if not protected:
            self.begun.set()
        self.more = any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip(b" 0"))
            for name, value in headers
        )
        if not self.more:
            self._whole.set()
        self.gone = False
        self.answered = False
        self.patience: asyncio.Timeout | None = None

    async def piece(self) -> bytes:
        """The next piece of the content."""
        message: Message = await self._receive()
        if message["type"] == "http.disconnect":
            self.gone, self.more = True, False
            raise IncompleteResponse("the client left before its request was whole")
        self.more = message.get("more_body", False)
        if not self.more:
            self._whole.set()
        body: bytes = message.get("body", b"")
        return body

    async def pieces(self, first: bytes, timeout_s: float) -> AsyncIterator[bytes]:
        """The content from its first piece. The upstream's time does not run while it is the client who is slow."""
        loop = asyncio.get_running_loop()
        if first:
            yield first
        while self.more:
            if self.patience is not None:
                self.patience.reschedule(None)
            piece = await self.piece()
            if self.patience is not None:
                self.patience.reschedule(loop.time() + timeout_s)
            yield piece

    async def watch(self, presence: asyncio.Timeout) -> None:
        """End `presence` when the client leaves unanswered. The door says that only to a handler that is overdue."""
        await self._whole.wait()
        await self.begun.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self.answered:
            presence.reschedule(0)


class _Spoilt(Exception):
    """A connection that must not carry a request."""


class _Request(aiohttp.ClientRequest):
    """A request that looks at its connection before it is written.

    aiohttp lets an idle connection collect what an upstream says unasked, "408 Request Timeout" above
    all, and would take it for the answer to the next request.

    Attributes:
        connected: there was a connection to write it on.
    """

    connected = False

    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        """Write the request, unless the connection has ended or has something to say."""
        protocol = conn.protocol
        if protocol is None or not protocol.is_connected() or protocol.should_close:
            raise _Spoilt
        self.connected = True
        return await super().send(conn)


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Say whether a request that failed was sent.

    It also keeps aiohttp from sending one again on a new connection: it does that for its own
    exceptions only, and only these know what they mean.
    """
    for _ in range(_SPOILT_MAX):
        try:
            return await handler(request)
        except _Spoilt:
            continue  # nothing was sent, and aiohttp has closed that connection
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise UpstreamUnreachable(f"no connection to the upstream ({_reason(error)})") from error
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamFailed(f"the upstream did not answer ({_reason(error)})") from error
        except ValueError as error:  # a host that no resolver takes
            if getattr(request, "connected", True):
                raise
            raise UpstreamUnreachable(f"the upstream has no usable address ({_reason(error)})") from error
    raise UpstreamUnreachable("the upstream speaks before it is asked")


def _reason(error: Exception) -> str:
    number = getattr(error, "errno", None)
    return os.strerror(number) if isinstance(number, int) and number > 0 else type(error).__name__


def _hop(connection: Connection) -> Hop:
    client = connection.get("client")
    return Hop(client[0] if client else None, connection["scheme"], connection["http_version"])


def _without_length(headers: Headers) -> Headers:
    return tuple((name, value) for name, value in headers if name != b"content-length")


def _text(headers: Headers | list[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """Fields as aiohttp takes them; it writes UTF-8, so the bytes on the wire are the same (see `strict`)."""
    return [(name.decode("ascii"), value.decode()) for name, value in headers]


def _abandon(operation: Operation | None, reason: str) -> None:
    """End without a whole answer: an operation's outcome is unknown, and no client may take what it got for whole."""
    if operation is not None:
        operation.outcome_unknown()
    raise IncompleteResponse(reason)


UNREACHABLE = Problem(
    "upstream-unreachable",
    "No connection to the upstream could be made. Nothing was sent to it. Send the same request again.",
)


def _failure(error: UpstreamFailed, method: str, operation: Operation | None) -> Problem:
    late = isinstance(error, UpstreamTimeout)
    if operation is not None:
        return replace(OUTCOME_UNKNOWN, status=504 if late else 502)
    return Problem(
        "upstream-timeout" if late else "upstream-failed",
        "The request was sent to the upstream and no usable answer came back. It may or may not have taken effect.",
        members=(("retryable", method in _IDEMPOTENT),),
    )
