"""The shop as a FastAPI application, without protection; packages wrap it, or its handlers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from conformance.shop import PATHS, Answer, Shop

Handler = Callable[..., Awaitable[Any]]


class Order(BaseModel, extra="allow"):
    """What is ordered."""

    reference: str
    quantity: int


def respond(answer: Answer) -> JSONResponse:
    """The answer of the shop as a response."""
    return JSONResponse(answer.document, answer.status, dict(answer.headers))


def handler_of(shop: Shop) -> Handler:
    """The one handler of everything that has an effect."""

    async def handle(request: Request) -> Response:
        body = await request.body()
        await asyncio.sleep(shop.delay_s(request.query_params))
        return respond(shop.place(request.url.path, request.query_params, body))

    return handle


def returning(shop: Shop) -> Handler:
    """The same for packages that record what a handler returns: a dictionary, or an exception of FastAPI's."""

    async def handle(request: Request, order: Order) -> dict[str, Any]:
        await asyncio.sleep(shop.delay_s(request.query_params))
        answer = shop.place(request.url.path, request.query_params, order.model_dump_json().encode())
        if answer.status >= 400:
            raise HTTPException(answer.status, answer.document)
        document: dict[str, Any] = answer.document
        return document

    return handle


def application(make: Callable[[Shop], Handler] = handler_of) -> FastAPI:
    """The shop.

    Args:
        make: makes the handler of every effect; a package that decorates handlers has it decorated.
    """
    app, shop = FastAPI(), Shop()
    handler = make(shop)
    for path in PATHS:
        app.add_api_route(path, handler, methods=["POST"], response_model=None, status_code=201)

    @app.get("/orders")
    async def orders(request: Request) -> Response:
        return respond(shop.count(request.query_params))

    return app
