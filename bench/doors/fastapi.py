"""FastAPI, with a request model."""

from __future__ import annotations

from fastapi import FastAPI

from bench.doors.handler import settings
from bench.framework import fastapi as bare
from retrysafe.fastapi import IdempotencyMiddleware

__all__ = ["bare", "protected"]


def protected() -> FastAPI:
    """Behind its door."""
    app = bare()
    app.add_middleware(IdempotencyMiddleware, **settings())
    return app
