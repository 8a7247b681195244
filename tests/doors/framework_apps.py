"""The application of `apps`, with the glue of a framework inside of it in place of the plain door around it."""

from __future__ import annotations

from typing import Any

import fastapi as framework
from starlette.applications import Starlette
from starlette.routing import Route

import retrysafe.fastapi
import retrysafe.starlette
from retrysafe.server.handling import Application, Receive, Send
from retrysafe.server.scope import Connection
from tests.doors.apps import FRAMEWORK, lifespan, make, told


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


starlette, fastapi = make(_starlette), make(_fastapi)
