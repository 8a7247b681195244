"""Every client that there is a transport for, under one roof: what is sent, and what is got."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import httpx
import httpx2
import requests

import retrysafe.aiohttp
import retrysafe.httpx
import retrysafe.requests
import retrysafe.urllib3
from retrysafe.aiohttp import IdempotencyMiddleware
from retrysafe.client.attempt import Schedule
from retrysafe.client.protection import outcome
from retrysafe.httpx import AsyncIdempotencyTransport, IdempotencyTransport
from retrysafe.requests import IdempotencyAdapter
from retrysafe.urllib3 import IdempotencyPoolManager

QUICK = Schedule(attempts_max=8, first_delay_s=0.01, deadline_s=60.0)
TIMEOUT_S = 10.0


@dataclass
class Got:
    """What the caller got: an answer, or an exception."""

    status: int
    content: bytes
    ended: Any
    failure: Any = None


@dataclass
class Post:
    """One call.

    Attributes:
        url: where to.
        content: bytes, or an iterator of bytes.
        files: parts of a multipart form, instead of the content.
        headers: beside the usual.
        timeout_s: of a read.
        settings: of the transport.
    """

    url: str
    content: Any = b'{"cents": 500}'
    files: Mapping[str, tuple[str, bytes]] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = TIMEOUT_S
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fields(self) -> dict[str, str]:
        """All headers. A connection carries one request, because a fault is of one connection."""
        typed = {} if self.files else {"Content-Type": "application/octet-stream"}
        return {"X-Account-Id": "7", "Connection": "close", **typed, **self.headers}

    @property
    def options(self) -> dict[str, Any]:
        """Of the transport."""
        return {"schedule": QUICK, **self.settings}


def by_httpx(library: Any) -> Callable[[Post], Got]:
    """The blocking client of httpx or httpx2."""

    def post(call: Post) -> Got:
        transport = IdempotencyTransport("retrysafe", **call.options)
        body = {"files": call.files} if call.files else {"content": call.content}
        with library.Client(transport=transport, timeout=call.timeout_s, follow_redirects=True) as client:
            response = client.post(call.url, headers=call.fields, **body)
            assert response.elapsed.total_seconds() >= 0  # of which a response knows only if its stream was closed
            return Got(response.status_code, response.content, outcome(response))

    return post


def by_httpx_async(library: Any) -> Callable[[Post], Got]:
    """The asyncio client of httpx or httpx2."""

    async def send(call: Post) -> Got:
        transport = AsyncIdempotencyTransport("retrysafe", **call.options)
        content = call.content if isinstance(call.content, bytes) else _aiter(call.content)
        body = {"files": call.files} if call.files else {"content": content}
        async with library.AsyncClient(transport=transport, timeout=call.timeout_s, follow_redirects=True) as client:
            response = await client.post(call.url, headers=call.fields, **body)
            return Got(response.status_code, response.content, outcome(response))

    return lambda call: asyncio.run(send(call))


def by_requests(call: Post) -> Got:
    """A session of requests."""
    with requests.Session() as session:
        session.mount("http://", IdempotencyAdapter("retrysafe", **call.options))
        body = {"files": call.files} if call.files else {"data": call.content}
        response = session.post(call.url, headers=call.fields, timeout=call.timeout_s, **body)
        return Got(response.status_code, response.content, outcome(response))


def by_aiohttp(call: Post) -> Got:
    """A session of aiohttp."""

    async def send() -> Got:
        middleware = IdempotencyMiddleware("retrysafe", **call.options)
        timeout = aiohttp.ClientTimeout(total=None, sock_read=call.timeout_s)
        async with (
            aiohttp.ClientSession(middlewares=[middleware], timeout=timeout) as session,
            session.post(call.url, headers=call.fields, data=_aiohttp_body(call)) as response,
        ):
            return Got(response.status, await response.read(), outcome(response))

    return asyncio.run(send())


def by_urllib3(call: Post) -> Got:
    """A pool manager of urllib3."""
    with IdempotencyPoolManager("retrysafe", **call.options) as pool:
        body: dict[str, Any] = {"fields": call.files} if call.files else {"body": call.content}
        response = pool.request("POST", call.url, headers=call.fields, timeout=call.timeout_s, **body)
        return Got(response.status, response.data, outcome(response))


CLIENTS: dict[str, Callable[[Post], Got]] = {
    "httpx2": by_httpx(httpx2),
    "httpx2-async": by_httpx_async(httpx2),
    "httpx": by_httpx(httpx),
    "httpx-async": by_httpx_async(httpx),
    "requests": by_requests,
    "aiohttp": by_aiohttp,
    "urllib3": by_urllib3,
}


def _resume_sync(make: Callable[[Post], Any], resume: Any) -> Callable[[Post, Any], Any]:
    def resumed(call: Post, journal: Any, **options: Any) -> Any:
        with make(call) as client:
            return resume(journal, client, **options)

    return resumed


def _resume_async(make: Callable[[Post], Any], resume: Any) -> Callable[[Post, Any], Any]:
    async def resumed(call: Post, journal: Any, **options: Any) -> Any:
        async with make(call) as client:
            return await resume(journal, client, **options)

    return lambda call, journal, **options: asyncio.run(resumed(call, journal, **options))


def _session(call: Post) -> requests.Session:
    session = requests.Session()
    session.mount("http://", IdempotencyAdapter("retrysafe", **call.options))
    return session


def _aiohttp_session(call: Post) -> Any:
    return aiohttp.ClientSession(middlewares=[IdempotencyMiddleware("retrysafe", **call.options)])


def _httpx_client(library: Any) -> Callable[[Post], Any]:
    return lambda call: library.Client(transport=IdempotencyTransport("retrysafe", **call.options))


def _httpx_async_client(library: Any) -> Callable[[Post], Any]:
    return lambda call: library.AsyncClient(transport=AsyncIdempotencyTransport("retrysafe", **call.options))


RESUME: dict[str, Callable[..., Any]] = {
    "httpx2": _resume_sync(_httpx_client(httpx2), retrysafe.httpx.resume),
    "httpx2-async": _resume_async(_httpx_async_client(httpx2), retrysafe.httpx.resume_async),
    "httpx": _resume_sync(_httpx_client(httpx), retrysafe.httpx.resume),
    "httpx-async": _resume_async(_httpx_async_client(httpx), retrysafe.httpx.resume_async),
    "requests": _resume_sync(_session, retrysafe.requests.resume),
    "aiohttp": _resume_async(_aiohttp_session, retrysafe.aiohttp.resume),
    "urllib3": _resume_sync(lambda call: IdempotencyPoolManager("retrysafe", **call.options), retrysafe.urllib3.resume),
}


def got(send: Callable[[Post], Got], call: Post) -> Got:
    """What the caller got, an exception too."""
    try:
        return send(call)
    except Exception as failure:  # noqa: BLE001 - each library has its own
        return Got(0, b"", outcome(failure), failure)


async def _aiter(pieces: Iterator[bytes]) -> Any:
    for piece in pieces:
        yield piece


def _aiohttp_body(call: Post) -> Any:
    if call.files is None:
        return call.content if isinstance(call.content, bytes) else _aiter(call.content)
    form = aiohttp.FormData()
    for name, (filename, content) in call.files.items():
        form.add_field(name, content, filename=filename)
    return form
