"""idemkit, as its README says: the middleware, a scope for each account, a store of this URL."""

from __future__ import annotations

import os

from idemkit import HttpConfig, IdempotencyMiddleware, PostgresBackend, RedisBackend

from bench.bare import App, Bare


def raw() -> App:
    """Raw ASGI behind the middleware; the tables in PostgreSQL are made by `idemkit init-pg` before."""
    url = os.environ["BENCH_STORE"]
    backend = RedisBackend.from_url(url) if url.startswith("redis:") else PostgresBackend.from_url(url)
    config = HttpConfig(scope=lambda request: request.headers.get("x-account-id", "anonymous"))
    protected: App = IdempotencyMiddleware(Bare(), backend=backend, config=config)
    return protected
