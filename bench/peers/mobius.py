"""mobius-idempotence-library, as its README says: a decorator on the route. It has no scope."""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI
from mobius_idempotence import IdempotencyConfig, IdempotencyManager, idempotent
from mobius_idempotence.backends.redis import RedisBackend

from bench.bare import SLOW_S
from bench.framework import Charge, Counter, with_routes


def framework() -> FastAPI:
    """FastAPI with decorated routes."""
    manager = IdempotencyManager(RedisBackend(os.environ["BENCH_STORE"]), IdempotencyConfig(fail_open=False))
    counter = Counter()

    @idempotent(manager, status_code=201)
    async def charge(charge: Charge) -> dict[str, Any]:  # noqa: ARG001 - a model to parse, as handlers have
        return await counter.charge()

    @idempotent(manager, status_code=201)
    async def slow(charge: Charge) -> dict[str, Any]:  # noqa: ARG001 - as above
        return await counter.charge(SLOW_S)

    return with_routes(counter, charge, slow)
