"""Starlette, with routes."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from bench.doors.handler import JSON, PATHS, Handler, settings
from retrysafe.starlette import IdempotencyMiddleware


def bare() -> Starlette:
    """The application alone."""
    handler = Handler()

    async def charge(request: Request) -> Response:
        await request.body()
        return Response(await handler.charge_async(request.url.path), 201, media_type=JSON)

    async def runs(_: Request) -> Response:
        return PlainTextResponse(handler.runs)

    return Starlette(routes=[*(Route(path, charge, methods=["POST"]) for path in PATHS), Route("/runs", runs)])


def protected() -> Starlette:
    """Behind its door."""
    app = bare()
    app.add_middleware(IdempotencyMiddleware, **settings())
    return app
