"""Middleware for ASGI applications: Starlette, FastAPI, Litestar, or none."""

from retrysafe.server.asgi import IdempotencyMiddleware

__all__ = ["IdempotencyMiddleware"]
