"""One HTTP library in a process of its own, alone or with our transport: calls one after the other, and their times.

    python -m bench.caller LIBRARY MODE URL FOLDER SECONDS

It prints one line of JSON. With the mode `journal` there is a journal in the folder, which is empty in the end.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

from bench.load import BODY
from retrysafe.client.journal import Journal

FIELDS = {"Content-Type": "application/json", "X-Account-Id": "acct_1"}
PROFILE = "retrysafe"
CREATED = 201
_WARM_UP_S = 0.5
Options = dict[str, Any] | None  # of our transport; None: the library alone
Call = Callable[[], int]  # gives the status
AsyncCall = Callable[[], Awaitable[int]]


@contextmanager
def _httpx(library: Any, url: str, options: Options) -> Iterator[Call]:
    from retrysafe.httpx import IdempotencyTransport  # noqa: PLC0415 - a process loads what it measures

    transport = None if options is None else IdempotencyTransport(PROFILE, **options)
    with library.Client(transport=transport) as client:
        yield lambda: int(client.post(url, content=BODY, headers=FIELDS).status_code)


@asynccontextmanager
async def _httpx_async(library: Any, url: str, options: Options) -> AsyncIterator[AsyncCall]:
    from retrysafe.httpx import AsyncIdempotencyTransport  # noqa: PLC0415 - as above

    transport = None if options is None else AsyncIdempotencyTransport(PROFILE, **options)

    async def call() -> int:
        response = await client.post(url, content=BODY, headers=FIELDS)
        return int(response.status_code)

    async with library.AsyncClient(transport=transport) as client:
        yield call


@contextmanager
def _requests(url: str, options: Options) -> Iterator[Call]:
    import requests  # noqa: PLC0415 - as above

    from retrysafe.requests import IdempotencyAdapter  # noqa: PLC0415 - as above

    with requests.Session() as session:
        if options is not None:
            session.mount("http://", IdempotencyAdapter(PROFILE, **options))
        yield lambda: session.post(url, data=BODY, headers=FIELDS).status_code


@asynccontextmanager
async def _aiohttp(url: str, options: Options) -> AsyncIterator[AsyncCall]:
    import aiohttp  # noqa: PLC0415 - as above

    from retrysafe.aiohttp import IdempotencyMiddleware  # noqa: PLC0415 - as above

    async def call() -> int:
        async with session.post(url, data=BODY, headers=FIELDS) as response:
            await response.read()
            return response.status

    middlewares = [] if options is None else [IdempotencyMiddleware(PROFILE, **options)]
    async with aiohttp.ClientSession(middlewares=middlewares) as session:
        yield call


@contextmanager
def _urllib3(url: str, options: Options) -> Iterator[Call]:
    import urllib3  # noqa: PLC0415 - as above

    from retrysafe.urllib3 import IdempotencyPoolManager  # noqa: PLC0415 - as above

    manager = urllib3.PoolManager() if options is None else IdempotencyPoolManager(PROFILE, **options)
    with manager as pool:
        yield lambda: pool.request("POST", url, body=BODY, headers=FIELDS).status


def blocking(library: str, url: str, options: Options) -> AbstractContextManager[Call] | None:
    """A client that blocks; None if the library is for an event loop."""
    match library:
        case "httpx" | "httpx2":
            return _httpx(__import__(library), url, options)
        case "requests":
            return _requests(url, options)
        case "urllib3":
            return _urllib3(url, options)
    return None


def asynchronous(library: str, url: str, options: Options) -> AbstractAsyncContextManager[AsyncCall]:
    """A client for an event loop."""
    match library:
        case "httpx-async" | "httpx2-async":
            return _httpx_async(__import__(library.removesuffix("-async")), url, options)
        case "aiohttp":
            return _aiohttp(url, options)
    raise ValueError(library)


class Times:
    """What was measured: seconds of each call, of which those that warm up do not count."""

    def __init__(self, seconds: float) -> None:
        self._from_s = time.perf_counter() + _WARM_UP_S
        self._until_s = self._from_s + seconds
        self._seconds: list[float] = []
        self._calls = 0
        self._cpu_s = 0.0

    def goes_on(self) -> bool:
        """Whether there is time for another call."""
        now_s = time.perf_counter()
        if not self._cpu_s and now_s >= self._from_s:
            self._cpu_s = _cpu_s()
        return now_s < self._until_s

    def add(self, began_s: float, status: int) -> None:
        """One call more."""
        if status != CREATED:
            raise ValueError(f"a call was answered {status}")
        self._calls += 1
        if began_s >= self._from_s:
            self._seconds.append(time.perf_counter() - began_s)

    def result(self) -> dict[str, float]:
        """For `bench.calls`."""
        measured = sorted(self._seconds)
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return {
            "calls": self._calls,
            "requests": len(measured),
            "elapsed_s": sum(measured),
            "p50_us": round(measured[len(measured) // 2] * 1e6),
            "p99_us": round(measured[len(measured) * 99 // 100] * 1e6),
            "cpu_us": (_cpu_s() - self._cpu_s) * 1e6 / len(measured),
            "resident_mib": pages * resource.getpagesize() / (1 << 20),
        }


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _loop(call: Call, times: Times) -> None:
    while times.goes_on():
        began_s = time.perf_counter()
        times.add(began_s, call())


async def _loop_async(client: AbstractAsyncContextManager[AsyncCall], times: Callable[[], Times]) -> Times:
    async with client as call:
        measured = times()
        while measured.goes_on():
            began_s = time.perf_counter()
            measured.add(began_s, await call())
    return measured


def measure(library: str, url: str, options: Options, seconds: float) -> dict[str, float]:
    """Call for so long."""
    if (client := blocking(library, url, options)) is not None:
        with client as call:
            times = Times(seconds)
            _loop(call, times)
    else:
        times = asyncio.run(_loop_async(asynchronous(library, url, options), lambda: Times(seconds)))
    return times.result()


def main() -> None:
    """As the head of this file says."""
    library, mode, url, folder, seconds = sys.argv[1:]
    if mode != "journal":
        result = measure(library, url, None if mode == "bare" else {}, float(seconds))
    else:
        with closing(Journal(Path(folder) / "journal.db")) as journal:
            result = measure(library, url, {"journal": journal}, float(seconds))
            if left := journal.unsettled():
                raise ValueError(f"{len(left)} calls were answered and are not settled")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
