"""The server that clients are tried against, in a process of its own: `tests.client.shop:application`.

What it does goes to a ledger in the folder that `SHOP_PLACE` names: `seen KEY PATH` for each request that arrives,
outside of the door, and `effect KEY DIGEST` for each that takes effect, behind it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from retrysafe import Policy
from retrysafe.asgi import IdempotencyMiddleware

ANSWER_BYTES = 2_000
GATE_S_MAX = 20
_PLACE = Path(os.environ.get("SHOP_PLACE", "."))


def note(line: str) -> None:
    """One line for the ledger, in one write that no other process can split."""
    ledger = os.open(_PLACE / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(ledger, f"{line}\n".encode())
    finally:
        os.close(ledger)


async def order(request: Request) -> Response:
    """Takes effect, with an answer that is long enough to be cut."""
    content = await request.body()
    note(f"effect {request.headers.get('idempotency-key')} {hashlib.sha256(content).hexdigest()}")
    async with asyncio.timeout(GATE_S_MAX):
        while (_PLACE / "closed").exists():  # noqa: ASYNC110 - the gate is in the hands of another process
            await asyncio.sleep(0.005)
    return JSONResponse({"order": len(content), "filler": "x" * ANSWER_BYTES}, status_code=201)


async def moved(request: Request) -> Response:
    """Is elsewhere: here, or where the query says."""
    return RedirectResponse(request.query_params.get("to", "/orders"), status_code=307)


async def refused(request: Request) -> Response:
    """A definitive no."""
    return JSONResponse({"code": "no-such-thing"}, status_code=422)


async def ready(request: Request) -> Response:
    """For who waits for the start."""
    return Response()


class Watched:
    """Notes each request that arrives, and is busy as often as the file `busy` says."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] != "http" or scope["path"] == "/ready":
            await self._inner(scope, receive, send)
            return
        request = Request(scope)
        note(f"seen {request.headers.get('idempotency-key')} {request.url.path}")
        for name, value in request.headers.items():
            if name in ("authorization", "cookie", "x-api-key"):
                note(f"credential {name}={value}")
        if (_PLACE / "busy").exists():
            (_PLACE / "busy").unlink()
            await Response(status_code=503, headers={"Retry-After": "0"})(scope, receive, send)
            return
        await self._inner(scope, receive, send)


application = Watched(
    IdempotencyMiddleware(
        Starlette(
            routes=[
                Route("/orders", order, methods=["POST"]),
                Route("/refused", refused, methods=["POST"]),
                Route("/moved", moved, methods=["POST"]),
                Route("/ready", ready),
            ]
        ),
        store=f"sqlite:///{_PLACE / 'records.db'}",
        scope="header:X-Account-Id",
        policy=Policy(required=True, lease="20s"),
        routes={"POST /moved": None},
        status_path="/idempotency/requests",
    )
)
