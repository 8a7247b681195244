"""idempotency-kit, by the coordinator of its README, in a route, with its defaults.

It knows no HTTP: the route hands it the key, with the account before it, and the fingerprint; how to
answer its refusal would be the route's to say, and is left to FastAPI here.
"""

from __future__ import annotations

import os
from typing import Annotated, Any

from fastapi import FastAPI, Header
from idempotency_kit import (
    AsyncIdempotencyCoordinator,
    IdempotencyDomainService,
    JsonResultAdapter,
    fingerprint_of,
)
from idempotency_kit.infra.storage.redis.aio import RedisAsyncIdempotencyRepository
from redis.asyncio import from_url

from bench.bare import SLOW_S
from bench.framework import Charge, Counter, with_routes

Key = Annotated[str, Header(alias="Idempotency-Key")]
Account = Annotated[str, Header(alias="X-Account-Id")]


def framework() -> FastAPI:
    """FastAPI with a coordinator in its routes; the account is a part of the operation."""
    counter = Counter()
    coordinator = AsyncIdempotencyCoordinator(
        RedisAsyncIdempotencyRepository(from_url(os.environ["BENCH_STORE"])), IdempotencyDomainService()
    )

    async def once(charge: Charge, key: str, account: str, slow_s: float) -> dict[str, Any]:
        receipt: dict[str, Any] = await coordinator.coordinate(
            "charge.create",
            f"{account}/{key}",  # a colon would be refused
            None,
            JsonResultAdapter(),
            counter.charge,
            slow_s,
            idempotency_fingerprint=fingerprint_of(charge=charge),
        )
        return receipt

    async def charge(charge: Charge, key: Key, account: Account) -> dict[str, Any]:
        return await once(charge, key, account, 0.0)

    async def slow(charge: Charge, key: Key, account: Account) -> dict[str, Any]:
        return await once(charge, key, account, SLOW_S)

    return with_routes(counter, charge, slow)
