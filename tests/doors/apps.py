"""The application that the tests run under real servers: it does what a request tells it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware  # noqa: TID251 - users stack it outside of the door
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from retrysafe import Policy
from retrysafe.asgi import IdempotencyMiddleware
from retrysafe.operation import current_operation
from retrysafe.server.handling import Application, Receive, Send
from retrysafe.server.scope import Connection
from tests.doors.gates import LEASE, failpoint, gate, note, routes, store

# --- handlers -------------------------------------------------------------------------------------


async def told(connection: Connection, receive: Receive, send: Send) -> None:
    """Answers as the content of the request says."""
    content = b""
    while True:
        message = await receive()
        content += message.get("body", b"")
        if not message.get("more_body", False):
            break
    wish = json.loads(content)
    try:
        await _do(wish, send)
    except asyncio.CancelledError:
        note(f"cancelled {wish['name']}")
        raise


async def _do(wish: dict[str, Any], send: Send) -> None:
    name = wish["name"]
    note(f"begun {name}")
    failpoint("before-effect")
    note(f"effect {name}")
    failpoint("after-effect")
    now = current_operation()
    if now is not None and "say" in wish:
        getattr(now, wish["say"])()
    await gate(f"{name}-effect")
    if wish.get("raise") == "before":
        raise ZeroDivisionError(f"before {name}")
    pieces = [piece.encode() for piece in wish.get("pieces", [f"order {name}"])]
    pieces = [piece * wish.get("times", 1) for piece in pieces]
    if wish.get("operation") and now is not None:
        pieces = [json.dumps({"attempt": now.attempt, "child": now.child_key("charge")}).encode()]
    headers = [(name.encode(), value.encode()) for name, value in wish.get("headers", [])]
    if wish.get("sized"):
        headers.append((b"content-length", b"%d" % sum(map(len, pieces))))
    await send({"type": "http.response.start", "status": wish.get("status", 201), "headers": headers})
    for number, piece in enumerate(pieces):
        await gate(f"{name}-{number}")
        if wish.get("raise") == ("between" if number else "first"):
            raise ZeroDivisionError(f"{wish['raise']} {name}")
        last = number == len(pieces) - 1 and not wish.get("sized")
        await send({"type": "http.response.body", "body": piece, "more_body": not last})
    if wish.get("sized"):
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    note(f"sent {name}")
    await gate(f"{name}-after")
    note(f"end {name}")


async def _streamed(request: Request) -> Response:
    name = request.query_params["name"]
    note(f"effect {name}")

    async def numbers() -> AsyncIterator[bytes]:
        for number in range(5):
            await gate(f"{name}-{number}")
            yield b"%d," % number

    return StreamingResponse(numbers(), 201)


async def _background(request: Request) -> Response:
    name = request.query_params["name"]
    note(f"effect {name}")

    async def later() -> None:
        await gate(f"{name}-after")
        note(f"end {name}")

    return PlainTextResponse("taken", 202, background=BackgroundTask(later))


def _file(_: Request) -> Response:
    return FileResponse(__file__)


def _threaded(request: Request) -> Response:
    """A blocking handler, which the framework runs in a thread."""
    now = current_operation()
    note(f"effect {request.query_params['name']}")
    return PlainTextResponse(now.key if now is not None else "unprotected", 201)


async def _size(request: Request) -> Response:
    note(f"effect {request.query_params['name']}")
    content = await request.body()
    return PlainTextResponse(f"{len(content)} {sum(content)}")


async def _ticks(request: Request) -> Response:
    async def ticks() -> AsyncIterator[bytes]:
        for number in range(3):
            await gate(f"{request.query_params['name']}-{number}")
            yield b"data: %d\n\n" % number

    return StreamingResponse(ticks(), media_type="text/event-stream")


async def _echo(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(await websocket.receive_text())
    await websocket.close()


def _allowed(request: Request) -> Response:
    """What a gateway asks before it replays."""
    return Response(status_code=403 if request.headers.get("X-Revoked") == "yes" else 204)


def _ready(_: Request) -> Response:
    return PlainTextResponse("ready")


def _sockets() -> int:
    return sum("/socket:" in str(file.resolve()) for file in Path("/proc/self/fd").iterdir())


async def _inside(_: Request) -> Response:
    """What there is in this process besides this request: by which a test sees whether something was left over."""
    tasks = sorted(getattr(task.get_coro(), "__qualname__", "?") for task in asyncio.all_tasks())
    return JSONResponse({"tasks": tasks, "sockets": _sockets()})


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    note("up")
    yield
    note("down")


FRAMEWORK = Starlette(
    routes=[
        Route("/streamed", _streamed, methods=["POST"]), Route("/background", _background, methods=["POST"]),
        Route("/file", _file, methods=["POST"]), Route("/threaded", _threaded, methods=["POST"]),
        Route("/size", _size, methods=["POST", "PUT"]), Route("/slash/", _threaded, methods=["POST"]),
        Route("/outer/streamed", _streamed, methods=["POST"]),
        Route("/ticks", _ticks), Route("/ready", _ready), Route("/allowed", _allowed),
        Route("/inside", _inside), WebSocketRoute("/echo", _echo),
    ],
    lifespan=lifespan,
)  # fmt: skip


async def shop(connection: Connection, receive: Receive, send: Send) -> None:
    """The handlers, bare ones and the framework's."""
    bare = connection["type"] == "http" and connection["path"].endswith("/told")
    await (told if bare else FRAMEWORK)(connection, receive, send)


# --- the door, and what is around it --------------------------------------------------------------


def _authorized(connection: Connection) -> bool:
    return (b"x-revoked", b"yes") not in connection["headers"]


def _plain(**settings: Any) -> Application:
    return IdempotencyMiddleware(shop, **settings)


def make(protect: Callable[..., Application] = _plain, **settings: Any) -> Application:
    """The shop behind its door; a path that begins with `/outer` comes by way of a `BaseHTTPMiddleware`.

    Args:
        protect: makes the shop behind the door, from the settings of that.
        settings: more or other settings of the door.
    """
    door = protect(
        **{
            "store": store(), "scope": "header:X-Account", "policy": Policy(lease=LEASE), "routes": routes(),
            "drain": os.environ.get("SHOP_DRAIN", "30s"),
            "authorize": _authorized,
            **settings,
        },
    )  # fmt: skip

    async def passing(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        return response

    outer = BaseHTTPMiddleware(door, dispatch=passing)

    async def application(connection: Connection, receive: Receive, send: Send) -> None:
        behind = connection["type"] == "http" and connection["path"].startswith("/outer")
        await (outer if behind else door)(connection, receive, _dying(send))

    return application


def _dying(send: Send) -> Send:
    """The server's send, with a failpoint before the first byte of an answer."""

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            failpoint("before-answer")
        await send(message)

    return sending


application = make()
