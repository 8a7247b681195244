"""What is cancelled: handlers that take turns, slow connections, and what users put around the door."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware  # noqa: TID251 - users stack it outside of the door
from starlette.responses import StreamingResponse
from starlette.routing import Route

from retrysafe.server.handling import Application
from tests.doors.connections import Connection
from tests.doors.handlers import content_of, piece, start


@dataclass
class Effects:
    """Counts what the handler did, outside of anything that is cancelled with it."""

    begun: int = 0
    done: int = 0


def slow_handler(effects: Effects) -> Application:
    """Takes turns before its effect, after it, and between the pieces of its answer."""

    async def handler(_connection, receive, send):
        effects.begun += 1
        await content_of(receive)
        await asyncio.sleep(0)
        effects.done += 1
        await asyncio.sleep(0)
        await send(start())
        for content in (b"order ", b"is "):
            await send(piece(content, more=True))
            await asyncio.sleep(0)
        await send(piece(b"taken"))
        await asyncio.sleep(0)

    return handler


def streaming_handler(effects: Effects) -> Application:
    """The same with the framework's means, which start tasks of their own."""

    async def order(request):
        effects.begun += 1
        await request.body()
        await asyncio.sleep(0)
        effects.done += 1

        async def content():
            for piece_ in (b"order ", b"is ", b"taken"):
                yield piece_
                await asyncio.sleep(0)

        return StreamingResponse(content(), 201)

    return Starlette(routes=[Route("/orders", order, methods=["POST"])])


class SlowConnection(Connection):
    """A server whose every receive and send takes a turn."""

    async def receive(self):
        await asyncio.sleep(0)
        return await super().receive()

    async def send(self, message):
        await asyncio.sleep(0)
        await super().send(message)
        await asyncio.sleep(0)


def alone(app: Application) -> Application:
    """The door with nothing around it."""
    return app


def behind_base_http(app: Application) -> Application:
    """The door behind a middleware that runs it in a task group, which a leaving client takes down."""

    async def passing(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    return BaseHTTPMiddleware(app, dispatch=passing)
