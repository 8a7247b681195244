"""A function behind `@once`, in both colours, in a process that calls it when it is asked to over HTTP.

The HTTP is the test's and no part of the door: the key is an argument as it stands, whoever calls it says whose key
it is, and what the function is given, returns and raises is all there is. `Idempotent-Replayed` says that it was not
entered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing
from contextvars import ContextVar
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from retrysafe import Policy
from retrysafe.errors import EarlierFailure, KeyReused, OperationInProgress, OutcomeUnknown, Refused
from retrysafe.functions import once
from tests.doors.gates import LEASE, store
from tests.doors.wsgi_apps import answer

CODES = {
    KeyReused: (422, "key-reused"), OperationInProgress: (409, "in-progress"),
    OutcomeUnknown: (409, "outcome-unknown"), EarlierFailure: (500, "handler-failed"),
}  # fmt: skip
_entered: ContextVar[list[str]] = ContextVar("_entered")
_store = store()


def _work(key: str, account: str, wish: dict[str, Any]) -> str:
    """Does what it is told, and returns what an answer would have said."""
    _entered.get().append(key)
    _, _, pieces = answer(wish)
    with closing(pieces):
        return b"".join(pieces).decode()


async def _work_async(key: str, account: str, wish: dict[str, Any]) -> str:
    return await asyncio.to_thread(_work, key, account, wish)


def _functions(work: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """The function with each policy that is asked for, by the path that it is asked for at."""
    policies = {
        "/told": Policy(lease=LEASE),
        "/wait/told": Policy(in_flight="wait", wait="20s"),
        "/short/told": Policy(lease="400ms"),
    }
    made = {}
    for path, policy in policies.items():
        made[path] = once(
            key=lambda key, account, wish: key, scope=lambda key, account, wish: account, compare=["wish"],
            store=_store, name=path, policy=policy,
        )(work)  # fmt: skip
    return made


def _application(work: Callable[..., Any], *, blocking: bool) -> Starlette:
    functions = _functions(work)

    async def call(request: Request) -> Response:
        entered: list[str] = []
        _entered.set(entered)
        try:
            wish = await request.json()
        except ClientDisconnect:
            return Response(status_code=400)  # which nobody gets
        arguments = (request.headers["idempotency-key"], request.headers["x-account"], wish)
        function = functions.get(request.url.path, functions["/told"])
        try:
            result = await (asyncio.to_thread(function, *arguments) if blocking else function(*arguments))
        except Refused as refused:
            status, code = CODES[type(refused)]
            said = {"retry-after": str(refused.retry_after_s)} if isinstance(refused, OperationInProgress) else {}
            return JSONResponse({"code": code}, status, said, "application/problem+json")
        return PlainTextResponse(result, 201, {} if entered else {"Idempotent-Replayed": "true"})

    async def ready(_: Request) -> Response:
        return PlainTextResponse("ready")

    methods = ["POST", "PUT", "PATCH"]
    return Starlette(routes=[Route("/ready", ready), Route("/{place:path}told", call, methods=methods)])


blocking, asynchronous = _application(_work, blocking=True), _application(_work_async, blocking=False)
