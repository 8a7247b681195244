"""Middleware for WSGI applications: Flask, Django, Pyramid, or none."""

from retrysafe.server.wsgi import IdempotencyMiddleware

__all__ = ["IdempotencyMiddleware"]
