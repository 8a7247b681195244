"""pyidempotent, as its README says: a decorator on the route, and its handler for conflicts. It has no scope."""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from pyidempotent import IdempotencyConflict, idempotent
from pyidempotent.backends.redis import RedisBackend
from redis.asyncio import from_url

from bench.bare import SLOW_S
from bench.framework import Charge, Counter, with_routes


def framework() -> FastAPI:
    """FastAPI with decorated routes."""
    backend = RedisBackend(from_url(os.environ["BENCH_STORE"]))
    counter = Counter()

    @idempotent(backend=backend, ttl=24 * 3600)
    async def charge(request: Request, charge: Charge) -> dict[str, Any]:  # noqa: ARG001 - what the decorator reads
        return await counter.charge()

    @idempotent(backend=backend, ttl=24 * 3600)
    async def slow(request: Request, charge: Charge) -> dict[str, Any]:  # noqa: ARG001 - as above
        return await counter.charge(SLOW_S)

    async def conflict(_request: Request, _error: Exception) -> None:
        raise HTTPException(422, "Idempotency-Key already used with different payload")

    app = with_routes(counter, charge, slow)
    app.exception_handler(IdempotencyConflict)(conflict)
    return app
