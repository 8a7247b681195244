"""A shop in every framework that `retry_check` knows, behind retrysafe and bare, and its effects."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import flask
import httpx
from fastapi import FastAPI
from fastapi.testclient import TestClient as FastApiClient
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from retrysafe.asgi import IdempotencyMiddleware
from retrysafe.testing import retry_check, retry_check_async
from retrysafe.wsgi import IdempotencyMiddleware as WsgiMiddleware

ORDER = {"reference": "{{unique}}", "quantity": 1}
ACCOUNTS = ({"X-Account-Id": "7"}, {"X-Account-Id": "8"})
SCOPE = "header:X-Account-Id"


class Orders:
    """What was ordered; an answer names the order, so that two executions differ."""

    def __init__(self) -> None:
        self.effects: Counter[str] = Counter()

    def place(self, reference: str) -> dict[str, object]:
        """An effect."""
        self.effects[reference] += 1
        return {"number": self.effects.total(), "reference": reference}

    def count(self, reference: str) -> int:
        """How often this was ordered."""
        return self.effects[reference]


class Order(BaseModel):
    """What FastAPI takes."""

    reference: str
    quantity: int


def starlette(orders, store):
    """Starlette, by its own client, entered: the application has started in the client's event loop."""

    async def order(request):
        return JSONResponse(orders.place((await request.json())["reference"]), status_code=201)

    app = Starlette(routes=[Route("/orders", order, methods=["POST"])])
    if store:
        app.add_middleware(IdempotencyMiddleware, store=store, scope=SCOPE)
    with TestClient(app) as client:
        yield client


def fastapi(orders, store):
    """FastAPI, by its client, not entered."""
    app = FastAPI()

    @app.post("/orders", status_code=201)
    async def order(order: Order):
        return orders.place(order.reference)

    if store:
        app.add_middleware(IdempotencyMiddleware, store=store, scope=SCOPE)
    yield FastApiClient(app)


def flask_(orders, store):
    """Flask, by its client."""
    app = flask.Flask(__name__)

    @app.post("/orders")
    def order():
        return orders.place(flask.request.get_json()["reference"]), 201

    if store:
        app.wsgi_app = WsgiMiddleware(app.wsgi_app, store=store, scope=SCOPE)  # type: ignore[method-assign] # Flask's way
    yield app.test_client()


def asgi(orders, store):
    """An ASGI application itself."""

    async def app(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError("it knows no lifespan")
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        content = json.dumps(orders.place(json.loads(body)["reference"])).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    yield IdempotencyMiddleware(app, store=store, scope=SCOPE) if store else app


def wsgi_application(orders):
    """WSGI."""

    def app(environ, start_response):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        content = json.dumps(orders.place(json.loads(body)["reference"])).encode()
        start_response("201 Created", [("Content-Type", "application/json"), ("Content-Length", str(len(content)))])
        return [content]

    return app


def wsgi(orders, store):
    """A WSGI application itself."""
    app = wsgi_application(orders)
    yield WsgiMiddleware(app, store=store, scope=SCOPE) if store else app


def httpx_wsgi(orders, store):
    """A WSGI application behind a client of httpx."""
    for app in wsgi(orders, store):
        yield httpx.Client(transport=httpx.WSGITransport(app=app), base_url="http://shop.example")


def httpx_asgi(orders, store):
    """An ASGI application behind a client of httpx for an event loop."""
    for app in asgi(orders, store):
        yield httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://shop.example")


MAKERS: dict[str, Callable[..., Iterator[Any]]] = {
    "starlette": starlette,
    "fastapi": fastapi,
    "flask": flask_,
    "asgi": asgi,
    "wsgi": wsgi,
    "httpx wsgi": httpx_wsgi,
    "httpx asgi": httpx_asgi,
}


def checked(name, client, **options):
    """The check of a client as its kind wants it."""
    options = {"json": ORDER, "accounts": ACCOUNTS, **options}
    if name != "httpx asgi":
        return retry_check(client, "POST", "/orders", **options)

    async def scene():
        async with client:
            return await retry_check_async(client, "POST", "/orders", **options)

    return asyncio.run(scene())
