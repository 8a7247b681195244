"""An application of FastAPI that sells in transactions of SQLAlchemy; its place comes from the environment."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from fastapi.responses import JSONResponse
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from starlette.requests import Request

from retrysafe import Policy, operation
from retrysafe.asgi import IdempotencyMiddleware
from tests.operation.kinds import INSERT, place_of

place = place_of(os.environ["SHOP_ENGINE"], json.loads(os.environ["SHOP_WORDS"]))
engine, aio_engine = create_engine(place.url), create_async_engine(place.aio_url)
app = FastAPI()


async def session_that_commits_late() -> AsyncIterator[AsyncSession]:
    """As it is often written: it ends after the response."""
    async with AsyncSession(aio_engine) as session:
        yield session
        await session.commit()


Late = Annotated[AsyncSession, Depends(session_that_commits_late)]


@app.get("/ready")
def ready() -> str:
    """For whoever waits."""
    return "ready"


@app.post("/async")
async def in_the_loop(order: dict[str, Any]) -> Any:
    """A coroutine with an `AsyncSession`."""
    async with AsyncSession(aio_engine) as session, session.begin():
        await session.execute(INSERT, {"name": order["name"]})
        answer = JSONResponse({"sold": order["name"]}, 201, {"location": "/orders/1", "set-cookie": "seen=yes"})
        return await operation().complete_within(session, answer)


@app.post("/threaded")
def in_a_thread(order: dict[str, Any]) -> Any:
    """A function, which the framework runs in a thread, with a `Session`."""
    with Session(engine) as session, session.begin():
        session.execute(INSERT, {"name": order["name"]})
        operation().complete_within(session, {"sold": order["name"]}, status=201)
    return {"this": "is not sent"}


@app.post("/raising")
async def raising(order: dict[str, Any]) -> Any:
    """Fails before its commit."""
    async with AsyncSession(aio_engine) as session, session.begin():
        await session.execute(INSERT, {"name": order["name"]})
        await operation().complete_within(session, {"sold": order["name"]})
        raise ZeroDivisionError


@app.post("/late")
async def late(order: dict[str, Any], session: Late) -> Any:
    """Answers before its commit."""
    await session.execute(INSERT, {"name": order["name"]})
    return await operation().complete_within(session, {"sold": order["name"]}, status=201)


@app.post("/unmindful")
async def unmindful(order: dict[str, Any], request: Request) -> Any:
    """Does not complete its record; it fails if it is told to."""
    if "fail" in request.query_params:
        return JSONResponse({"failed": True}, 503)
    return {"took": order["name"]}


app.add_middleware(
    IdempotencyMiddleware, store=place.store, scope="header:X-Account", policy=Policy(transactional=True, lease="30s")
)
