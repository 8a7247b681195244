"""One shop, written in each framework that has glue, to stand behind its door in this process.

`POST /v1/charges/{number}` is marked and needs a key; what it is told with `X-Refuse` refuses before the handler, with
that status. `POST /plain` is not marked, `POST /out` is marked as not enrolled, `POST /sub/charges` is elsewhere.
"""

from __future__ import annotations

from typing import Annotated, Any

import fastapi
import litestar
from litestar.exceptions import HTTPException as LitestarRefusal
from litestar.params import FromPath, JSONBody
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

import retrysafe.fastapi
import retrysafe.litestar
import retrysafe.starlette
from retrysafe.server.marker import idempotent
from retrysafe.stores.memory import MemoryStore


class Charge(BaseModel):
    """What a client orders."""

    cents: int


class Effects(list[str]):
    """What the handlers have done."""

    def add(self, what: str) -> dict[str, Any]:
        """One more effect, and the answer of it."""
        self.append(what)
        return {"effect": len(self)}


class _Refusing:
    """A layer around one route of Starlette."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if status := request.headers.get("x-refuse"):
            await Response(status_code=int(status))(scope, receive, send)
            return
        await self.app(scope, receive, send)


def starlette_shop(effects: Effects, **settings: Any) -> ASGIApp:
    """Routes, a mounted router, and a mounted application."""

    @idempotent(required=True, lifetime="7d")
    async def charge(request: Request) -> Response:
        if "cents" not in await request.json():
            raise HTTPException(422)
        return JSONResponse(effects.add(f"charge {request.path_params['number']}"), 201)

    async def plain(_: Request) -> Response:
        return JSONResponse(effects.add("plain"), 201)

    @idempotent(enrolled=False)
    def out(_: Request) -> Response:
        return JSONResponse(effects.add("out"), 201)

    @idempotent(required=True)
    def elsewhere(_: Request) -> Response:
        return JSONResponse(effects.add("elsewhere"), 201)

    app = Starlette(
        routes=[
            Mount(
                "/v1",
                routes=[
                    Route("/charges/{number:int}", charge, methods=["POST"], middleware=[Middleware(_Refusing)]),
                ],
            ),
            Route("/plain", plain, methods=["POST"]),
            Route("/out", out, methods=["POST"]),
            Mount("/sub", Starlette(routes=[Route("/charges", elsewhere, methods=["POST"])])),
        ]
    )
    app.add_middleware(retrysafe.starlette.IdempotencyMiddleware, **_settings(settings))
    return app


def fastapi_shop(effects: Effects, **settings: Any) -> ASGIApp:
    """Routers in routers, a dependency, and a mounted application."""

    def refuse(x_refuse: Annotated[int | None, fastapi.Header()] = None) -> None:
        if x_refuse:
            raise fastapi.HTTPException(x_refuse)

    inner, outer = fastapi.APIRouter(prefix="/charges"), fastapi.APIRouter(prefix="/v1")

    @inner.post("/{number}", status_code=201, dependencies=[fastapi.Depends(refuse)])
    @idempotent(required=True, lifetime="7d")
    async def charge(number: int, order: Charge) -> dict[str, Any]:
        return effects.add(f"charge {number}")

    outer.include_router(inner)
    app, sub = fastapi.FastAPI(), fastapi.FastAPI()
    app.include_router(outer)

    @app.post("/plain", status_code=201)
    async def plain() -> dict[str, Any]:
        return effects.add("plain")

    @app.post("/out", status_code=201)
    @idempotent(enrolled=False)
    def out() -> dict[str, Any]:
        return effects.add("out")

    @sub.post("/charges", status_code=201)
    @idempotent(required=True)
    def elsewhere() -> dict[str, Any]:
        return effects.add("elsewhere")

    app.mount("/sub", sub)
    app.add_middleware(retrysafe.fastapi.IdempotencyMiddleware, **_settings(settings))
    retrysafe.fastapi.describe(app)
    return app


def litestar_shop(effects: Effects, **settings: Any) -> Any:
    """Routers, a guard, and what `opt` says."""

    def refuse(connection: litestar.connection.ASGIConnection[Any, Any, Any, Any], _: Any) -> None:
        if status := connection.headers.get("x-refuse"):
            raise LitestarRefusal(status_code=int(status))

    @litestar.post("/charges/{number:int}", guards=[refuse])
    @idempotent(required=True, lifetime="7d")
    async def charge(number: FromPath[int], data: JSONBody[Charge]) -> dict[str, Any]:
        return effects.add(f"charge {number}")

    @litestar.post("/plain")
    async def plain() -> dict[str, Any]:
        return effects.add("plain")

    @litestar.post("/out", opt={"idempotency": False})
    async def out() -> dict[str, Any]:
        return effects.add("out")

    @litestar.post("/charges", opt={"idempotency": {"required": True}}, sync_to_thread=True)
    def elsewhere() -> dict[str, Any]:
        return effects.add("elsewhere")

    routers = [
        litestar.Router("/v1", route_handlers=[charge]),
        litestar.Router("/sub", route_handlers=[elsewhere]),
    ]
    plugin = retrysafe.litestar.IdempotencyPlugin(**_settings(settings))
    return litestar.Litestar([*routers, plain, out], plugins=[plugin], logging_config=None)


def _settings(settings: dict[str, Any]) -> dict[str, Any]:
    return {"store": MemoryStore(), "scope": "header:X-Account", **settings}


SHOPS = {"starlette": starlette_shop, "fastapi": fastapi_shop, "litestar": litestar_shop}
