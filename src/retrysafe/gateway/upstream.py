"""The upstream as an ASGI application, and what became of a request that was sent to it.

A request was *answered*, or *never sent* (no connection: nothing ran, the key is free again), or its
outcome is *unknown* (anything that goes wrong once there is a connection). Nothing is ever sent twice.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import lru_cache, partial
from types import TracebackType
from typing import Self, cast
from urllib.parse import urlsplit

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from retrysafe.errors import IncompleteResponse, RetrysafeError
from retrysafe.gateway import strict
from retrysafe.gateway.forwarding import Hop, Rules, request_headers, response_headers, states_no_effect
from retrysafe.gateway.presence import Client, Watch
from retrysafe.gateway.session import Answer, UpstreamFailed, UpstreamUnreachable, open_session, reason
from retrysafe.model import Headers
from retrysafe.operation import Operation, current_operation
from retrysafe.operation.noted import note
from retrysafe.protocol.decision import OUTCOME_UNKNOWN
from retrysafe.protocol.effects import Fate
from retrysafe.protocol.problem import Problem
from retrysafe.server.handling import Receive, Send
from retrysafe.server.scope import Connection

_log = logging.getLogger("retrysafe.gateway")

# A repetition of these changes nothing (RFC 9110 9.2.2); for the rest the client must not be told to repeat.
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})

# Above this aiohttp takes a content in pieces only, because one write would hold up the loop.
_ONE_WRITE_BYTES_MAX = 1 << 20

# The URLs of so many targets are kept: most requests have the target of an earlier one.
_URLS_MAX = 512

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
        # yarl's own authority has lost the brackets of an IPv6 address
        parts = urlsplit(origin)
        self._tls = parts.scheme == "https"
        self._url = lru_cache(_URLS_MAX)(partial(_url, parts.scheme, parts.netloc))
        self._rules = rules
        self._silence_s = timeout_s
        # Connecting counts towards the silence and must end first, or what was never sent would look as if it was.
        self._connect_timeout_s = min(connect_timeout_s, 0.9 * timeout_s)
        self._keepalive_s = keepalive_s
        self._problems_url = problems_url
        self._watch = Watch()

    async def __aenter__(self) -> Self:
        self._session = open_session(
            tls=self._tls, connect_timeout_s=self._connect_timeout_s, keepalive_s=self._keepalive_s
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End every connection; who waits for an answer is told that none came. Safe to repeat."""
        self._watch.give_up("the gateway was shut down")
        await self._session.close()

    async def __call__(self, connection: Connection, receive: Receive, send: Send) -> None:
        """Carry one request to the upstream and its answer back, piece by piece in both directions."""
        operation = current_operation()
        client = Client(receive, connection["headers"], protected=operation is not None, silence_s=self._silence_s)
        self._watch.begin(client)
        try:
            async with client.stay:
                await self._exchange(connection, client, send, operation)
        except TimeoutError:
            await self._cut_off(connection["method"], client, send, operation)
        finally:
            self._watch.end(client)

    # --- one exchange -----------------------------------------------------------------------------

    async def _exchange(self, connection: Connection, client: Client, send: Send, operation: Operation | None) -> None:
        try:
            answer = await self._ask(connection, client)
        except UpstreamUnreachable as error:
            _log.warning("%s; nothing was sent", error)
            note(Fate.NOT_RUN)
            if operation is not None:
                operation.not_run()
            await self._refuse(UNREACHABLE, client, send)
            return
        except UpstreamFailed as error:
            if client.gone:  # the failure is that there was nothing left to send
                raise IncompleteResponse("the client left before its request was whole") from None
            await self._fail(str(error), connection["method"], client, send, operation)
            return
        try:
            if states_no_effect(answer.raw_headers):
                note(Fate.NO_EFFECT)
                if operation is not None:
                    operation.no_effect()
            await self._relay(answer, client, send)
        except UpstreamFailed as error:
            _log.warning("%s", error)
            _abandon(operation, str(error))
        finally:
            answer.close()  # leaves a connection alone whose answer was read to its end

    async def _ask(self, connection: Connection, client: Client) -> Answer:
        """Send the request; return when its answer has begun.

        Raises:
            UpstreamUnreachable: there was no connection.
            UpstreamFailed: there was one.
            IncompleteResponse: the client left before its request was whole.
        """
        first = await client.piece() if client.more else b""
        fields = request_headers(tuple(connection["headers"]), _hop(connection), self._rules)
        content: aiohttp.BytesPayload | AsyncIterator[bytes] | None = None
        if not client.more:  # the length that goes on is the one of what was read, not the one that was said
            fields = _with_length(fields, len(first))
        if client.more or len(first) > _ONE_WRITE_BYTES_MAX:
            content = _pieces(client, first)
        elif first:
            content = aiohttp.BytesPayload(first)
        client.hurry()
        try:
            answer = await self._request(connection["method"], strict.target_of(connection), fields, content)
        finally:
            client.rest()
        client.begun = True
        if fault := strict.answer_fault(answer.status, answer.raw_headers):
            answer.close()
            raise UpstreamFailed(fault)
        return answer

    async def _request(
        self, method: str, target: bytes, fields: Headers, content: aiohttp.BytesPayload | AsyncIterator[bytes] | None
    ) -> Answer:
        url = self._url(target)
        if self._session.closed:
            raise UpstreamUnreachable("the gateway is shutting down")
        headers = CIMultiDict([(name.decode("ascii"), value.decode()) for name, value in fields])
        return cast(
            Answer, await self._session.request(method, url, headers=headers, data=content, allow_redirects=False)
        )

    async def _relay(self, answer: Answer, client: Client, send: Send) -> None:
        """Send the answer on, each piece as it comes.

        Raises:
            UpstreamFailed: it ended before its end.
        """
        headers = response_headers(answer.raw_headers, answer.status, self._rules)
        await send({"type": "http.response.start", "status": answer.status, "headers": list(headers)})
        content = answer.content
        while not client.answered:
            client.hurry()
            try:
                piece = await content.readany()
            except (aiohttp.ClientError, OSError, RuntimeError) as error:  # aiohttp's, if there is no connection
                raise UpstreamFailed(f"the upstream broke off its answer ({reason(error)})") from error
            client.rest()
            over = content.at_eof()
            if over and answer.was_reset:
                raise UpstreamFailed("the upstream broke off its answer (reset)")
            client.answered = over
            await send({"type": "http.response.body", "body": piece, "more_body": not over})

    # --- what went wrong --------------------------------------------------------------------------

    async def _cut_off(self, method: str, client: Client, send: Send, operation: Operation | None) -> None:
        """The exchange was ended from outside."""
        if not client.given_up:
            _abandon(operation, "nobody waits for the answer any more")
        if client.begun:
            _log.warning("%s; its answer is broken off", client.given_up)
            _abandon(operation, client.given_up)
        await self._fail(client.given_up, method, client, send, operation)

    async def _fail(self, reason: str, method: str, client: Client, send: Send, operation: Operation | None) -> None:
        """No answer came, and nobody knows what the upstream did."""
        _log.warning("%s; a %s request may have taken effect", reason, method)
        note(Fate.UNKNOWN)
        if operation is not None:
            operation.outcome_unknown()
        await self._refuse(_failure(method, operation, late=client.overdue), client, send)

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
        try:
            async with asyncio.timeout(self._silence_s):
                answer = await self._request("GET", target.encode(), tuple(headers), None)
                answer.close()
                return 200 <= answer.status < 300
        except (TimeoutError, RetrysafeError) as error:
            _log.warning("a replay could not be authorised (%s), so it was refused", error or type(error).__name__)
            return False


def _url(scheme: str, authority: str, target: bytes) -> URL:
    """Where a target is at the upstream: all of it as the path, so that nothing is parsed, decoded or tidied.

    Raises:
        UpstreamUnreachable: nothing can be there.
    """
    try:
        url = URL.build(scheme=scheme, authority=authority, path=target.decode("ascii"), encoded=True)
        usable = bool(url.raw_host)  # to ask is what makes yarl look at the authority
    except ValueError:
        usable = False
    if not usable:
        raise UpstreamUnreachable("the upstream has no usable address")
    return url


async def _pieces(client: Client, first: bytes) -> AsyncIterator[bytes]:
    """The content, from its first piece."""
    if first:
        yield first
    while client.more:
        yield await client.piece()


def _with_length(fields: Headers, content_bytes: int) -> Headers:
    """The fields with the length of a content, if they say that there is one; aiohttp says it of the others."""
    return tuple([(name, b"%d" % content_bytes if name == b"content-length" else value) for name, value in fields])


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


def _failure(method: str, operation: Operation | None, *, late: bool) -> Problem:
    if operation is not None:
        return replace(OUTCOME_UNKNOWN, status=504 if late else 502)
    return Problem(
        "upstream-timeout" if late else "upstream-failed",
        "The request was sent to the upstream and no usable answer came back. It may or may not have taken effect.",
        members=(("retryable", method in _IDEMPOTENT),),
    )
