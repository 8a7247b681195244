"""Transports for clients of httpx2, and of httpx, which has the same shape: a request says which of them it is of."""

from __future__ import annotations

import sys
from contextlib import aclosing, closing, suppress
from typing import Any, Self

from retrysafe.client.attempt import Ended, Failure, Reply
from retrysafe.client.entry import Asked
from retrysafe.client.protection import NOTE, Call, Protection, conclude, is_hopeless, is_read_whole
from retrysafe.client.resume import AsyncCarrier, Carrier


class _Operation:
    """One operation, with the last response or failure of its attempts."""

    def __init__(self, library: Any, protection: Protection, request: Any) -> None:
        self._library = library
        self._protection = protection
        self._original = request
        self._content = request.content
        self._response: Any = None
        self._failure: Exception | None = None

    def asked(self) -> Asked:
        """The request, without its key."""
        request = self._original
        return self._protection.asked(request.method, str(request.url), request.headers.multi_items(), self._content)

    def request(self, call: Call) -> Any:
        """The request for one attempt: the same bytes each time, and a stream of its own."""
        library, original = self._library, self._original
        headers = library.Headers(original.headers)
        headers[self._protection.profile.header] = call.key
        if "transfer-encoding" in headers:  # its content was a stream, and was read
            del headers["transfer-encoding"]
            headers["content-length"] = str(len(self._content))
        return library.Request(
            original.method, original.url, headers=headers, extensions=original.extensions,
            stream=library.ByteStream(self._content),
        )  # fmt: skip

    def failed(self, failure: Exception) -> Reply:
        """No answer came; raised is what no further attempt could mend."""
        library = self._library
        if isinstance(failure, (library.UnsupportedProtocol, library.LocalProtocolError)) or is_hopeless(failure):
            raise failure
        self._failure, self._response = failure, None
        return Failure(
            sent=not isinstance(failure, (library.ConnectError, library.ConnectTimeout, library.PoolTimeout))
        )

    def answered(self, response: Any, raw: bytes | None) -> Reply:
        """An answer came; with its bytes if it was read whole. Nothing is decoded of what the client will get."""
        content = b""
        if raw is not None:
            library, headers = self._library, response.headers
            response = library.Response(
                response.status_code, headers=headers, stream=library.ByteStream(raw), extensions=response.extensions
            )
            with suppress(library.DecodingError):
                content = library.Response(response.status_code, headers=headers, content=raw).content
        self._failure, self._response = None, response
        return self._protection.reply(response.status_code, response.headers, content)

    def concluded(self, call: Call, ended: Ended) -> Any:
        """The last response; what went wrong instead is raised."""
        self._original.extensions[NOTE] = call  # a redirected request has the same extensions
        return conclude(ended, self._response, self._failure)


_BaseTransport: Any = object  # of either library, and neither needs to be there to be asked


class _Transport(_BaseTransport):  # type: ignore[misc] # to type checkers it is what each library wants
    """What both colours share.

    Args:
        profile: how the server takes keys: a name such as `"retrysafe"`, `"stripe-v1"` or `"ietf"`, or a `Profile`.
        transport: what sends; None is the library's own.
        settings: `origins`, `schedule`, `budget` and `journal`, as `Protection` has them.

    Raises:
        ConfigurationError: there is no such profile, or an origin is none.
    """

    def __init__(self, profile: Any, *, transport: Any = None, **settings: Any) -> None:
        self._protection = Protection(profile, **settings)
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
        operation = _Operation(library, self._protection, request)

        def attempt(call: Call) -> Reply:
            try:
                response, raw = inner.handle_request(operation.request(call)), None
                if is_read_whole(response.status_code, response.headers):
                    with closing(response):
                        raw = b"".join(response.stream)
            except library.TransportError as failure:
                return operation.failed(failure)
            return operation.answered(response, raw)

        return operation.concluded(*self._protection.perform(call, operation.asked(), attempt))

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
        operation = _Operation(library, self._protection, request)

        async def attempt(call: Call) -> Reply:
            try:
                response, raw = await inner.handle_async_request(operation.request(call)), None
                if is_read_whole(response.status_code, response.headers):
                    async with aclosing(response):
                        raw = b"".join([piece async for piece in response.stream])
            except library.TransportError as failure:
                return operation.failed(failure)
            return operation.answered(response, raw)

        return operation.concluded(*await self._protection.perform_async(call, operation.asked(), attempt))

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


def _send_again(client: Any, asked: Asked) -> Any:
    """A request past the client's own parameters, which its URL has already."""
    library = sys.modules[type(client).__module__.partition(".")[0]]
    headers = library.Headers(client.headers)
    headers.update(library.Headers(list(asked.headers)))
    cookies = None if "cookie" in headers else client.cookies
    return client.send(
        library.Request(asked.method, asked.url, headers=headers, content=asked.content, cookies=cookies)
    )


def _read(response: Any) -> tuple[int, bytes]:
    return response.status_code, response.content


async def _read_async(response: Any) -> tuple[int, bytes]:
    return _read(response)


resume = Carrier(_send_again, _read).resume
resume_async = AsyncCarrier(_send_again, _read_async).resume
