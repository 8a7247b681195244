"""fastapi-idempotency, as its README says: the middleware, and a scope for each account."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi_idempotency import IdempotencyMiddleware

from conformance.apps.framework import application


def account(request: Request) -> str:
    """Who asks."""
    return request.headers.get("authorization", "")


def app() -> FastAPI:
    """The shop behind it."""
    made = application()
    made.add_middleware(IdempotencyMiddleware, scope=account)
    return made
