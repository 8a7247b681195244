"""aws-lambda-powertools, as its documentation says for any function: a blocking one, in a route that is blocking too.

It knows no HTTP: the key and the account are members of its argument, and its `event_key_jmespath` says so.
Its comparison of the rest, `payload_validation_jmespath`, is off as it is by default: with it, version
3.37.0 over Redis refuses every replay.
"""

from __future__ import annotations

import os
import time
from typing import Annotated, Any
from urllib.parse import urlsplit

from aws_lambda_powertools.utilities.idempotency import IdempotencyConfig, idempotent_function
from aws_lambda_powertools.utilities.idempotency.persistence.redis import RedisCachePersistenceLayer
from fastapi import FastAPI, Header

from bench.bare import SLOW_S
from bench.framework import Charge, Counter, with_routes

Key = Annotated[str, Header(alias="Idempotency-Key")]
Account = Annotated[str, Header(alias="X-Account-Id")]


def framework() -> FastAPI:
    """FastAPI with blocking routes that call the decorated function."""
    counter = Counter()
    place = urlsplit(os.environ["BENCH_STORE"])
    store = RedisCachePersistenceLayer(host=place.hostname, port=place.port, ssl=False)
    config = IdempotencyConfig(event_key_jmespath="[account, key]")

    @idempotent_function(data_keyword_argument="order", config=config, persistence_store=store)
    def once(order: dict[str, Any], slow_s: float) -> dict[str, Any]:  # noqa: ARG001 - what the decorator reads
        time.sleep(slow_s)  # noqa: TID251 - the work of a blocking handler
        return counter.blocking()

    def charge(charge: Charge, key: Key, account: Account) -> Any:
        return once(order={"account": account, "key": key, "charge": charge.model_dump()}, slow_s=0.0)

    def slow(charge: Charge, key: Key, account: Account) -> Any:
        return once(order={"account": account, "key": key, "charge": charge.model_dump()}, slow_s=SLOW_S)

    return with_routes(counter, charge, slow)
