"""Litestar, with handlers that answer bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from litestar import Litestar, MediaType, Request, Response, get, post
from litestar.plugins import PluginProtocol

from bench.doors.handler import PATHS, Handler, settings
from retrysafe.litestar import IdempotencyPlugin


def _with(plugins: Sequence[PluginProtocol]) -> Litestar:
    handler = Handler()

    @post(list(PATHS))
    async def charge(request: Request[Any, Any, Any]) -> Response[bytes]:
        await request.body()
        return Response(await handler.charge_async(request.url.path), media_type=MediaType.JSON)

    @get("/runs", media_type=MediaType.TEXT)
    async def runs() -> str:
        return handler.runs

    return Litestar([charge, runs], plugins=plugins, openapi_config=None, logging_config=None)


def bare() -> Litestar:
    """The application alone."""
    return _with([])


def protected() -> Litestar:
    """With its plugin."""
    return _with([IdempotencyPlugin(**settings())])
