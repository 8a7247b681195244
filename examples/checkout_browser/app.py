"""Tickets over a bad network: FastAPI and SQLite, with a page whose form is sent once however often it is clicked."""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Annotated, Any

from fastapi import Cookie, FastAPI, Form, HTTPException
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles

from retrysafe import Policy
from retrysafe.fastapi import IdempotencyMiddleware, describe, idempotent

HERE = Path(__file__).parent
PAGE = HERE / "page"
MODULE = HERE.parents[1] / "browser" / "src"
DATABASE = os.environ.get("DATABASE", "orders.db")
PARTNERS = os.environ.get("PARTNERS", "").split()  # other origins whose pages may order here
TICKETS_MAX = int(os.environ.get("TICKETS_MAX", "9"))
TABLE = """
CREATE TABLE IF NOT EXISTS orders (
    number INTEGER PRIMARY KEY, shopper TEXT NOT NULL, cart TEXT NOT NULL, quantity INTEGER NOT NULL
)
"""


@asynccontextmanager
async def prepared(_: FastAPI) -> AsyncIterator[None]:
    """The table of orders."""
    with closing(sqlite3.connect(DATABASE)) as connection:
        connection.execute(TABLE)
    yield


def shopper_of(connection: Any) -> str | None:
    """Whose key it is: the shopper's, whom the page gave a cookie that nobody can guess."""
    lines = dict(connection["headers"]).get(b"cookie", b"").decode("latin-1")
    cookie = SimpleCookie(lines).get("shopper")
    return cookie.value if cookie else None


app = FastAPI(title="Tickets", lifespan=prepared)


@app.get("/")
async def begin() -> Response:
    """A new cart, which is a new intent."""
    return RedirectResponse(f"/carts/{secrets.token_hex(4)}", 303)


@app.get("/carts/{cart}")
async def show(cart: str, shopper: Annotated[str | None, Cookie()] = None) -> Response:  # noqa: ARG001 - for its path
    """The page of a cart, which finds its name in its address."""
    answer = FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})
    if shopper is None:
        answer.set_cookie("shopper", secrets.token_hex(16), httponly=True, samesite="lax")
    return answer


@app.post("/carts/{cart}/orders", status_code=201)
@idempotent(required=True)
def order(
    cart: str, quantity: Annotated[int, Form(ge=1, le=TICKETS_MAX)], shopper: Annotated[str, Cookie()]
) -> dict[str, int]:
    """Order tickets. Whoever calls this twice orders twice: it is the key that makes it once."""
    with closing(sqlite3.connect(DATABASE, timeout=30)) as connection, connection:
        connection.execute("BEGIN IMMEDIATE")
        before = connection.execute("SELECT coalesce(sum(quantity), 0) FROM orders WHERE cart = ?", (cart,))
        if before.fetchone()[0] + quantity > TICKETS_MAX:
            raise HTTPException(409, f"no more than {TICKETS_MAX} for a cart")
        added = connection.execute(
            "INSERT INTO orders (shopper, cart, quantity) VALUES (?, ?, ?) RETURNING number", (shopper, cart, quantity)
        )
        (number,) = added.fetchone()
    return {"order": number, "quantity": quantity}


@app.get("/carts/{cart}/orders")
def orders(cart: str, shopper: Annotated[str, Cookie()]) -> list[dict[str, int]]:
    """What the shopper ordered from a cart."""
    with closing(sqlite3.connect(DATABASE, timeout=30)) as connection:
        found = connection.execute(
            "SELECT number, quantity FROM orders WHERE cart = ? AND shopper = ? ORDER BY number", (cart, shopper)
        )
        return [{"order": number, "quantity": quantity} for number, quantity in found]


app.mount("/retrysafe", StaticFiles(directory=MODULE))
app.mount("/page", StaticFiles(directory=PAGE))
app.add_middleware(
    IdempotencyMiddleware,
    store=os.environ.get("STORE", "sqlite:///records.db"),
    scope=shopper_of,
    policy=Policy(lease="30s"),
    status_path="/idempotency/requests",
)
app.add_middleware(
    CORSMiddleware,
    allow_origins=PARTNERS,
    allow_credentials=True,
    allow_methods=["GET", "POST"],
    allow_headers=["Idempotency-Key"],
    expose_headers=["Idempotent-Replayed", "Retry-After"],
)
describe(app)
