"""`retry_check`: the cases of `retrysafe verify` against an application in this process, from any test.

What is behind the test client is served on the loopback for as long as the check lasts, so that the cases are those
that any API is verified by, and nothing stands between them and the application. Where the application is protected
by retrysafe, what no client can bring about is made to happen inside the engine: a request that takes its time, and a
worker that dies before its effect, or between its effect and its record.

Checking needs `retrysafe[pytest]`; importing this does not.
"""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any, Unpack

from retrysafe.errors import CallerError
from retrysafe.testing.asked import Asked, Options
from retrysafe.testing.retry_report import RetryReport


def retry_check(client: Any, method: str, path: str, **options: Unpack[Options]) -> RetryReport:
    """Check that an operation is safe to retry.

    Args:
        client: a test client of Starlette, FastAPI, Django or Flask, an httpx client with `ASGITransport` or
            `WSGITransport`, or the application itself, ASGI or WSGI. What it sends with every request, the check
            sends too; its cookies and its `Authorization` say who asks, unless `accounts` does.
        method: of the operation, `POST` say.
        path: of the operation, with its query if it has one.
        options: as `Options` says.

    Returns:
        What came of each case, when none failed.

    Raises:
        NotSafeToRetry: a case that must hold does not, or no case that must hold reached a verdict.
        CallerError: an event loop runs here, or the client has no application behind it.
        ConfigurationError: an option cannot be used.
    """
    asked = Asked(client=client, method=method, path=path, **options)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        report: RetryReport = _checking().check(asked)
        return report
    raise CallerError("an event loop runs here: await retry_check_async(...), which takes the same arguments")


async def retry_check_async(client: Any, method: str, path: str, **options: Unpack[Options]) -> RetryReport:
    """`retry_check` where an event loop runs, which is then the loop of the application too.

    The lifespan of an ASGI application is not run: a test that needs it has run it in this loop.
    """
    report: RetryReport = await _checking().check_here(Asked(client=client, method=method, path=path, **options))
    return report


def _checking() -> ModuleType:
    """The part that needs the extra."""
    try:
        from retrysafe.testing import checking  # noqa: PLC0415 - needs an extra
    except ModuleNotFoundError as missing:
        raise CallerError(f'retry_check needs {missing.name}: pip install "retrysafe[pytest]"') from missing
    return checking
