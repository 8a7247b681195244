"""fastapi-idempotency-key, as its README says: the middleware with its memory. It has no scope."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi_idempotency_key import IdempotencyMiddleware, MemoryBackend

from conformance.apps.framework import application


def app() -> FastAPI:
    """The shop behind it."""
    made = application()
    made.add_middleware(
        IdempotencyMiddleware, backend=MemoryBackend(), header_name="Idempotency-Key", default_ttl=86_400
    )
    return made
