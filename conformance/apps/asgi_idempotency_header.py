"""asgi-idempotency-header, as its README says. It has no scope."""

from __future__ import annotations

from fastapi import FastAPI
from idempotency_header_middleware import IdempotencyHeaderMiddleware
from idempotency_header_middleware.backends import MemoryBackend

from conformance.apps.framework import application


def app() -> FastAPI:
    """The shop behind it."""
    made = application()
    made.add_middleware(IdempotencyHeaderMiddleware, backend=MemoryBackend())
    return made
