"""Transports for clients of httpx2, and of httpx, which has the same shape: a request says which of them it is of."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Self

from retrysafe.client.answers import answer_of, needs_content
from retrysafe.client.attempt import Ended, Failure, Reply, Schedule
from retrysafe.client.budget import RetryBudget
from retrysafe.client.profile import Profile
from retrysafe.client.protection import NOTE, Call, Protection, told
from retrysafe.client.run import run, run_async, wall_clock_s


class _Operation:
    """One operation, with the last response or failure of its attempts."""

    def __init__(self, library: Any, protection: Protection, call: Call, request: Any) -> None:
        self._library = library
        self._profile = protection.profile
        request.extensions[NOTE] = call  # a redirected request has the same extensions
        headers = library.Headers(request.headers)
        headers[protection.profile.header] = call.key
        self._sent = {
            "method": request.method, "url": request.url, "headers": headers, "extensions": request.extensions
        }  # fmt: skip
        self._content = request.content
        self._response: Any = None
        self._failure: Exception | None = None

    def request(self) -> Any:
        """The request for one attempt: the same bytes each time, and a stream of its own."""
        return self._library.Request(**self._sent, stream=self._library.ByteStream(self._content))

    def failed(self, failure: Exception) -> Reply:
        """No answer came; raised is what no further attempt could mend."""
        library = self._library
        if isinstance(failure, (library.UnsupportedProtocol, library.LocalProtocolError)):
            raise failure
        self._failure, self._response = failure, None
        return Failure(
            sent=not isinstance(failure, (library.ConnectError, library.ConnectTimeout, library.PoolTimeout))
        )

    def answered(self, response: Any) -> Reply:
        """An answer came, and its content was read if it is of an error."""
        self._failure, self._response = None, response
        content = response.content if needs_content(response.status_code) else b""
        return answer_of(response.status_code, response.headers, content, self._profile, wall_clock_s())

    def concluded(self, ended: Ended) -> Any:
        """The last response; what went wrong instead is raised."""
        if self._failure is not None:
            self._failure.add_note(told(ended))
            raise self._failure
        self._response.extensions[NOTE] = ended
        return self._response


class _Transport:
    """What both colours share.

    Args:
        profile: how the server takes keys: a name such as `"retrysafe"`, `"stripe-v1"` or `"ietf"`, or a `Profile`.
        transport: what sends; None is the library's own.
        origins: where keys are sent, `"https://api.example.com"`; None is everywhere.
        schedule: how often and how long to try.
        budget: how many retries this process may make; share one among transports.

    Raises:
        ConfigurationError: there is no such profile, or an origin is none.
    """

    def __init__(
        self,
        profile: str | Profile,
        *,
        transport: Any = None,
        origins: Sequence[str] | None = None,
        schedule: Schedule | None = None,
        budget: RetryBudget | None = None,
    ) -> None:
        self._protection = Protection(profile, origins, schedule, budget)
        self._inner = transport

    def _inner_of(self, library: Any, kind: str) -> Any:
        if self._inner is None:
            self._inner = getattr(library, kind)()
        return self._inner

    def _call_of(self, request: Any) -> Call | None:
        before = request.extensions.get(NOTE)
        call = self._protection.call_of(request.method, str(request.url), request.headers, before)
        if call is None and before is not None:  # it was redirected to another origin
            request.headers.pop(self._protection.profile.header, None)
        return call


class IdempotencyTransport(_Transport):
    """For blocking clients: `httpx2.Client(transport=IdempotencyTransport("stripe-v1"))`."""

    __doc__ = f"{__doc__}\n{_Transport.__doc__}"

    def handle_request(self, request: Any) -> Any:
        """One call of the client's, to its last attempt."""
        library = _library_of(request)
        inner = self._inner_of(library, "HTTPTransport")
        call = self._call_of(request)
        if call is None:
            return inner.handle_request(request)
        request.read()
        operation = _Operation(library, self._protection, call, request)

        def attempt() -> Reply:
            try:
                response = inner.handle_request(operation.request())
                if needs_content(response.status_code):
                    response.read()
            except library.TransportError as failure:
                return operation.failed(failure)
            return operation.answered(response)

        return operation.concluded(run(self._protection.attempts(call), attempt, self._protection.budget))

    def close(self) -> None:
        """Close what sends."""
        if self._inner is not None:
            self._inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncIdempotencyTransport(_Transport):
    """For asyncio clients: `httpx2.AsyncClient(transport=AsyncIdempotencyTransport("stripe-v1"))`."""

    __doc__ = f"{__doc__}\n{_Transport.__doc__}"

    async def handle_async_request(self, request: Any) -> Any:
        """One call of the client's, to its last attempt."""
        library = _library_of(request)
        inner = self._inner_of(library, "AsyncHTTPTransport")
        call = self._call_of(request)
        if call is None:
            return await inner.handle_async_request(request)
        await request.aread()
        operation = _Operation(library, self._protection, call, request)

        async def attempt() -> Reply:
            try:
                response = await inner.handle_async_request(operation.request())
                if needs_content(response.status_code):
                    await response.aread()
            except library.TransportError as failure:
                return operation.failed(failure)
            return operation.answered(response)

        return operation.concluded(await run_async(self._protection.attempts(call), attempt, self._protection.budget))

    async def aclose(self) -> None:
        """Close what sends."""
        if self._inner is not None:
            await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _library_of(request: Any) -> Any:
    return sys.modules[type(request).__module__.partition(".")[0]]
