"""The project behind a test client of Django's, as a server has it: with threads, requests of its own, and real bytes.

A test client calls Django by a handler that is no application; these are. What the client does for itself, it goes on
doing: unless it enforces checks of CSRF tokens, there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.db import connections
from django.test.client import AsyncClient

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def application_behind(client: Any) -> Any:
    """The ASGI application behind an `AsyncClient`, the WSGI application behind a `Client`.

    A WSGI request leaves no connection to a database behind on its thread.
    """
    is_async = isinstance(client, AsyncClient)
    handler: Any = ASGIHandler() if is_async else WSGIHandler()
    if not client.handler.enforce_csrf_checks:
        kind = ASGIRequest if is_async else WSGIRequest
        handler.request_class = type(kind.__name__, (kind,), {"_dont_enforce_csrf_checks": True})
    return handler if is_async else _closing(handler)


def _closing(handler: Wsgi) -> Wsgi:
    def serving(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        try:
            response: Any = handler(environ, start_response)
            try:
                yield from response
            finally:
                response.close()
        finally:
            connections.close_all()

    return serving
