"""asgi-idempotency-header, as its README says. It has no scope."""

from __future__ import annotations

import os

from idempotency_header_middleware import IdempotencyHeaderMiddleware
from idempotency_header_middleware.backends import RedisBackend
from redis.asyncio import from_url

from bench.bare import App, Bare


def raw() -> App:
    """Raw ASGI behind the middleware."""
    redis = from_url(os.environ["BENCH_STORE"])
    protected: App = IdempotencyHeaderMiddleware(Bare(), backend=RedisBackend(redis=redis))
    return protected
