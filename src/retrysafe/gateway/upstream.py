"""The upstream as an ASGI application, and what became of a request that was sent to it.

A request was *answered*, or *never sent* (no connection: nothing ran, the key is free again), or its
outcome is *unknown* (anything that goes wrong once there is a connection). Nothing is ever sent twice.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

from retrysafe.errors import IncompleteResponse, RetrysafeError
from retrysafe.gateway import strict
from retrysafe.gateway.address import Address
from retrysafe.gateway.forwarding import Hop, Rules, request_headers, response_headers, states_no_effect
from retrysafe.gateway.link import Link, UpstreamFailed, UpstreamTimeout, head_of
from retrysafe.gateway.pool import Pool, UpstreamUnreachable
from retrysafe.gateway.presence import Client, Watch
from retrysafe.model import Headers
from retrysafe.operation import Operation, current_operation
from retrysafe.protocol.decision import OUTCOME_UNKNOWN
from retrysafe.protocol.problem import Problem
from retrysafe.server.exchange import Receive, Send
from retrysafe.server.scope import Connection

_log = logging.getLogger("retrysafe.gateway")

# A repetition of these changes nothing (RFC 9110 9.2.2); for the rest the client must not be told to repeat.
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})

# A request by these has no content unless it says so; one by another method without content says that (RFC 9110 8.6).
_WITHOUT_CONTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})

# Of the request that is asked about, not of the question whether its answer may be shown.
_NOT_FOR_AUTHORIZATION = frozenset(
    {b"content-length", b"content-type", b"content-encoding", b"range", b"if-match", b"if-none-match"}
    | {b"if-modified-since", b"if-unmodified-since", b"if-range"}
)


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
        self._address = Address(origin)
        self._rules = rules
        self._silence_s = timeout_s
        # Connecting counts towards the silence and must end first, or what was never sent would look as if it was.
        self._connect_timeout_s = min(connect_timeout_s, 0.9 * timeout_s)
        self._keepalive_s = keepalive_s
        self._problems_url = problems_url
        self._watch = Watch()

    async def __aenter__(self) -> Self:
        self._pool = Pool(
            self._address,
            silence_s=self._silence_s,
            connect_timeout_s=self._connect_timeout_s,
            keepalive_s=self._keepalive_s,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every connection; who waits for an answer is told that none came. Safe to repeat."""
        self._pool.close()

    async def __call__(self, connection: Connection, receive: Receive, send: Send) -> None:
        """Carry one request to the upstream and its answer back, piece by piece in both directions."""
        operation = current_operation()
        client = Client(receive, connection["headers"], protected=operation is not None)
        self._watch.begin(client)
        try:
            async with client.presence:
                await self._exchange(connection, client, send, operation)
        except TimeoutError:
            _abandon(operation, "nobody waits for the answer any more")
        finally:
            self._watch.end(client)

    # --- one exchange -----------------------------------------------------------------------------

    async def _exchange(self, connection: Connection, client: Client, send: Send, operation: Operation | None) -> None:
        try:
            link = await self._ask(connection, client)
        except UpstreamUnreachable as error:
            _log.warning("%s; nothing was sent", error)
            if operation is not None:
                operation.not_run()
            await self._refuse(UNREACHABLE, client, send)
            return
        except UpstreamFailed as error:
            _log.warning("%s; a %s request may have taken effect", error, connection["method"])
            if operation is not None:
                operation.outcome_unknown()
            await self._refuse(_failure(error, connection["method"], operation), client, send)
            return
        try:
            if operation is not None and states_no_effect(tuple(link.fields)):
                operation.no_effect()
            await self._relay(link, client, send)
        except UpstreamFailed as error:
            _log.warning("%s", error)
            _abandon(operation, str(error))
        finally:
            self._pool.give_back(link)

    async def _ask(self, connection: Connection, client: Client) -> Link:
        """Send the request; return when its answer has begun.

        Raises:
            UpstreamUnreachable: there was no connection.
            UpstreamFailed: there was one.
            IncompleteResponse: the client left before its request was whole.
        """
        first = await client.piece() if client.more else b""
        method: str = connection["method"]
        fields = request_headers(tuple(connection["headers"]), _hop(connection), self._rules)
        fields, chunked = self._framed(fields, method, None if client.more else len(first))
        head = head_of(method, strict.target_of(connection), fields)
        link = await self._pool.take()
        try:
            if client.more:
                link.ask(head, to_head=method == "HEAD")
                client.sending = asyncio.get_running_loop().create_task(
                    _send_pieces(link, client, first, chunked=chunked)
                )
            else:
                link.ask(head + first, to_head=method == "HEAD")
                link.sent = True
            await link.head()
            _check(link)
        except BaseException:
            link.close()
            self._pool.give_back(link)
            raise
        return link

    def _framed(self, headers: Headers, method: str, content_bytes: int | None) -> tuple[Headers, bool]:
        """The fields with what the wire needs; and whether the content goes in chunks.

        Args:
            headers: for the upstream.
            method: of the request.
            content_bytes: of a content that is whole; None of one that is still coming.
        """
        fields = [field for field in headers if field[0] != b"content-length"]
        lengths = [value for name, value in headers if name == b"content-length"]
        if all(name != b"host" for name, _ in fields):
            fields.insert(0, (b"host", self._address.host_field))
        chunked = content_bytes is None and not lengths
        if chunked:
            fields.append((b"transfer-encoding", b"chunked"))
        elif content_bytes is None:
            fields.append((b"content-length", lengths[0]))
        elif content_bytes or lengths or method not in _WITHOUT_CONTENT:
            fields.append((b"content-length", b"%d" % content_bytes))
        if not self._keepalive_s:
            fields.append((b"connection", b"close"))
        return tuple(fields), chunked

    async def _relay(self, link: Link, client: Client, send: Send) -> None:
        """Send the answer on, each piece as it comes.

        Raises:
            UpstreamFailed: it ended before its end.
        """
        client.begun = True
        headers = response_headers(tuple(link.fields), link.status, self._rules)
        await send({"type": "http.response.start", "status": link.status, "headers": list(headers)})
        while not client.answered:
            piece = await link.piece()
            client.answered = link.over
            await send({"type": "http.response.body", "body": piece, "more_body": not client.answered})

    async def _refuse(self, problem: Problem, client: Client, send: Send) -> None:
        response = problem.response(self._problems_url, uuid.uuid4().urn)
        client.answered = True
        await send({"type": "http.response.start", "status": response.status, "headers": list(response.headers)})
        await send({"type": "http.response.body", "body": response.body})

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
        fields, _ = self._framed(tuple(headers), "GET", 0)
        try:
            link = await self._pool.take()
            try:
                link.ask(head_of("GET", target.encode(), fields), to_head=False)
                link.sent = True
                await link.head()
                return 200 <= link.status < 300
            finally:
                self._pool.give_back(link)
        except RetrysafeError as error:
            _log.warning("a replay could not be authorised (%s), so it was refused", error)
            return False


async def _send_pieces(link: Link, client: Client, first: bytes, *, chunked: bool) -> None:
    """Send a content as it comes. The time for an answer to begin does not run while it is the client who is slow."""
    piece = first
    try:
        while True:
            await link.write(_chunk(piece) if chunked else piece)
            if not client.more:
                break
            if not link.status:
                link.rest()
            piece = await client.piece()
            if not link.status:
                link.hurry()
        if chunked:
            await link.write(b"0\r\n\r\n")
        link.sent = True
    except Exception as error:  # noqa: BLE001 - whatever it is, the request will not be whole
        link.fail(error)


def _check(link: Link) -> None:
    if fault := strict.answer_fault(link.status, tuple(link.fields)):
        raise UpstreamFailed(fault)


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(piece), piece) if piece else b""  # an empty one would be the last


def _hop(connection: Connection) -> Hop:
    client = connection.get("client")
    return Hop(client[0] if client else None, connection["scheme"], connection["http_version"])


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
