"""A middleware for clients of aiohttp: `ClientSession(middlewares=[IdempotencyMiddleware("stripe-v1")])`."""

from __future__ import annotations

from typing import Any

import aiohttp
from aiohttp import BytesPayload, ClientHandlerType, ClientRequest, ClientResponse
from yarl import URL

from retrysafe.client.attempt import Failure, Reply
from retrysafe.client.entry import Asked
from retrysafe.client.protection import Call, Protection, conclude, is_hopeless, is_read_whole
from retrysafe.client.resume import AsyncCarrier

_NEVER_LEFT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
_MENDABLE = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError)  # a bare TimeoutError: the time of all is over


class _Content(BytesPayload):
    """The content of an operation. A redirected request has the same, and so is known for what it is."""

    call: Call | None = None


class IdempotencyMiddleware:
    """One key for each operation, kept over every attempt.

    The time that a session gives a request, `ClientTimeout(total=...)`, is for all attempts together; for each of them
    use `sock_connect` and `sock_read`.

    Args:
        profile: how the server takes keys: a name such as `"retrysafe"`, `"stripe-v1"` or `"ietf"`, or a `Profile`.
        settings: `origins`, `schedule`, `budget` and `journal`, as `Protection` has them.

    Raises:
        ConfigurationError: there is no such profile, or an origin is none.
    """

    def __init__(self, profile: Any, **settings: Any) -> None:
        self._protection = Protection(profile, **settings)

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """One call of the session's, to its last attempt."""
        header = self._protection.profile.header
        before = request.body.call if isinstance(request.body, _Content) else None
        call = self._protection.call_of(request.method, str(request.url), request.headers, before)
        if call is None:
            if before is not None:  # it was redirected to another origin
                request.headers.popall(header, None)
            return await handler(request)
        kept = await _read(request)
        seen: list[Any] = [None, None]

        async def attempt(call: Call) -> Reply:
            request.headers[header] = call.key
            try:
                return await self._answered(await handler(request), seen)
            except _MENDABLE as failure:
                if is_hopeless(failure):
                    raise
                seen[:] = [None, failure]
                return Failure(sent=not isinstance(failure, _NEVER_LEFT))

        asked = self._protection.asked(request.method, str(request.url), request.headers.items(), await kept.as_bytes())
        kept.call, ended = await self._protection.perform_async(call, asked, attempt)
        return conclude(ended, *seen)  # type: ignore[no-any-return] # what was put there

    async def _answered(self, response: ClientResponse, seen: list[Any]) -> Reply:
        content = await response.read() if is_read_whole(response.status, response.headers) else b""
        seen[:] = [response, None]
        return self._protection.reply(response.status, response.headers, content)


async def _read(request: ClientRequest) -> _Content:
    """Read the content once; from then on it is bytes, with the headers that it had."""
    if isinstance(request.body, _Content):
        return request.body
    content = await request.body.as_bytes() if request.body else b""
    named = "Content-Type" in request.headers
    kept = _Content(content)
    await request.update_body(kept)
    if not named:
        request.headers.popall("Content-Type", None)
    return kept


async def _send_again(session: aiohttp.ClientSession, asked: Asked) -> ClientResponse:
    url = URL(asked.url, encoded=True)
    return await session.request(asked.method, url, headers=list(asked.headers), data=asked.content or None)


async def _read_whole(response: ClientResponse) -> tuple[int, bytes]:
    return response.status, await response.read()


resume = AsyncCarrier(_send_again, _read_whole).resume
