"""idemkit, as its README says: the middleware, and a scope for each account."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from idemkit import HttpConfig, IdempotencyMiddleware, InMemoryBackend

from conformance.apps.framework import application


def account(request: Any) -> str:
    """Who asks."""
    return str(request.headers.get("authorization", "anonymous"))


def app() -> FastAPI:
    """The shop behind it."""
    made = application()
    made.add_middleware(IdempotencyMiddleware, backend=InMemoryBackend(), config=HttpConfig(scope=account))
    return made
