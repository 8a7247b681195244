"""Raw WSGI."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from bench.doors.handler import JSON, Handler, settings
from retrysafe.wsgi import IdempotencyMiddleware

WsgiApp = Callable[..., Iterable[bytes]]


def bare() -> WsgiApp:
    """The application alone."""
    handler = Handler()

    def application(environ: Any, start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "GET":
            status, content = "200 OK", handler.runs.encode()
        else:
            environ["wsgi.input"].read()
            status, content = "201 Created", handler.charge(environ["PATH_INFO"])
        start_response(status, [("Content-Type", JSON), ("Content-Length", str(len(content)))])
        return [content]

    return application


def protected() -> WsgiApp:
    """Behind its door."""
    return IdempotencyMiddleware(bare(), **settings())
