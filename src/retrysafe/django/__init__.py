"""Django: middleware for its own list, a mark for views, and the records in its own database."""

from retrysafe.django.middleware import IdempotencyMiddleware, close_all
from retrysafe.server.marker import idempotent

__all__ = ["IdempotencyMiddleware", "close_all", "idempotent"]
