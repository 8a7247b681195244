"""The same handler in FastAPI, with a request model: what most Python services look like."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from bench.bare import ANSWER, SLOW_PATH, SLOW_S


class Charge(BaseModel):
    """What the load sends."""

    amount: int
    currency: str
    customer: str
    metadata: dict[str, str]
    note: str


class Counter:
    """The handler, and how often it was entered."""

    def __init__(self) -> None:
        self.runs = 0

    async def charge(self, slow_s: float = 0.0) -> dict[str, Any]:
        """Do nothing, or nothing for so long."""
        receipt = self.blocking()
        if slow_s:
            await asyncio.sleep(slow_s)
        return receipt

    def blocking(self) -> dict[str, Any]:
        """The same for a blocking handler."""
        self.runs += 1
        return dict(_RECEIPT)


_RECEIPT: dict[str, Any] = json.loads(ANSWER)

Route = Callable[..., Any]


def with_routes(counter: Counter, charge: Route, slow: Route) -> FastAPI:
    """An application with these two handlers, and the count of runs."""
    app = FastAPI(openapi_url=None)
    app.post("/charges", status_code=201)(charge)
    app.post(SLOW_PATH, status_code=201)(slow)

    async def runs() -> int:
        return counter.runs

    app.get("/runs")(runs)
    return app


def fastapi() -> FastAPI:
    """The application alone, for `uvicorn --factory`."""
    counter = Counter()

    async def charge(charge: Charge) -> dict[str, Any]:  # noqa: ARG001 - a model to parse, as handlers have
        return await counter.charge()

    async def slow(charge: Charge) -> dict[str, Any]:  # noqa: ARG001 - as above
        return await counter.charge(SLOW_S)

    return with_routes(counter, charge, slow)
