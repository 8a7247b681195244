"""The application of `apps`, with the glue of a framework inside of it in place of the plain door around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import fastapi as framework
import litestar as other_framework
from litestar.logging import LoggingConfig
from litestar.params import FromPath
from litestar.types import ASGIApp
from starlette.applications import Starlette
from starlette.routing import Route

import retrysafe.fastapi
import retrysafe.litestar
import retrysafe.starlette
from retrysafe.server.handling import Application, Receive, Send
from retrysafe.server.scope import Connection
from tests.doors.apps import FRAMEWORK, lifespan, make, shop, told


class Told:
    """The handler that does what it is told, as an endpoint."""

    async def __call__(self, connection: Connection, receive: Receive, send: Send) -> None:
        """One order."""
        await told(connection, receive, send)


ROUTES = [Route("/{place:path}told", Told()), *FRAMEWORK.routes]


def _starlette(**settings: Any) -> Application:
    app = Starlette(routes=ROUTES, lifespan=lifespan)
    app.add_middleware(retrysafe.starlette.IdempotencyMiddleware, **settings)
    return app


def _fastapi(**settings: Any) -> Application:
    app = framework.FastAPI(routes=ROUTES, lifespan=lifespan)
    app.add_middleware(retrysafe.fastapi.IdempotencyMiddleware, **settings)
    return app


@other_framework.route("/{place:path}", http_method=["GET", "POST", "PUT", "PATCH"])
async def every(place: FromPath[Path]) -> ASGIApp:
    """Litestar takes no routes of Starlette's: one handler has all paths, and says who answers."""
    return _shop


async def _shop(scope: Any, receive: Any, send: Any) -> None:
    await shop(scope, receive, send)


def _litestar(**settings: Any) -> Application:
    plugin = retrysafe.litestar.IdempotencyPlugin(**settings)
    echo = other_framework.asgi("/echo", copy_scope=True)(_shop)
    logging = LoggingConfig(log_exceptions="always")
    return cast("Application", other_framework.Litestar([every, echo], plugins=[plugin], logging_config=logging))


starlette, fastapi, litestar = make(_starlette), make(_fastapi), make(_litestar)
