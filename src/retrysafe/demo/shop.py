"""A small shop. It takes stock, charges a card, and answers; it has never heard of retries.

Like many a first application it does its work in one transaction and believes that a request which
arrives is an order. Run it as any ASGI application:

    SHOP_DATABASE=shop.db SHOP_STOCK=100 uvicorn --factory retrysafe.demo.shop:from_environment
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

PRICES_CENTS = {"tea": 450, "coffee": 790, "honey": 620, "bread": 380}
ANSWER_DELAY_MS = 40  # a receipt is printed, say: the effect is done, and the client does not know it yet

_SCHEMA = """
CREATE TABLE IF NOT EXISTS stock (item TEXT PRIMARY KEY, remaining INTEGER NOT NULL, price_cents INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, reference TEXT NOT NULL, item TEXT NOT NULL,
                                   quantity INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS charges (id INTEGER PRIMARY KEY, reference TEXT NOT NULL, card TEXT NOT NULL,
                                    amount_cents INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS requests (id INTEGER PRIMARY KEY, reference TEXT NOT NULL);
"""


class SoldOut(Exception):
    """There is not enough of the item."""


class Shop:
    """The shop's own tables, and what it does with them.

    Args:
        database: the SQLite file; created if it is not there.
        stock: how many of each item a new shop has.
    """

    def __init__(self, database: Path, stock: int) -> None:
        self._database = sqlite3.connect(database)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.executescript(_SCHEMA)
        with self._database:
            self._database.executemany(
                "INSERT OR IGNORE INTO stock VALUES (?, ?, ?)",
                [(item, stock, price_cents) for item, price_cents in PRICES_CENTS.items()],
            )

    def note_request(self, reference: str) -> None:
        """Count a request to order, whatever becomes of it."""
        with self._database:
            self._database.execute("INSERT INTO requests (reference) VALUES (?)", (reference,))

    def place(self, reference: str, item: str, quantity: int, card: str) -> dict[str, Any]:
        """Take stock and charge the card, both or neither.

        Raises:
            SoldOut: there is not enough of the item, or it was never sold.
        """
        with self._database:
            taken = self._database.execute(
                "UPDATE stock SET remaining = remaining - ?1 WHERE item = ?2 AND remaining >= ?1 RETURNING price_cents",
                (quantity, item),
            ).fetchone()
            if taken is None:
                raise SoldOut
            amount_cents = quantity * taken[0]
            placed = self._database.execute(
                "INSERT INTO orders (reference, item, quantity) VALUES (?, ?, ?)", (reference, item, quantity)
            )
            self._database.execute(
                "INSERT INTO charges (reference, card, amount_cents) VALUES (?, ?, ?)", (reference, card, amount_cents)
            )
        return {"id": placed.lastrowid, "order": reference, "amount_cents": amount_cents}

    def orders(self) -> list[dict[str, Any]]:
        """Every order, oldest first."""
        rows = self._database.execute("SELECT id, reference, item, quantity FROM orders ORDER BY id")
        return [{"id": id_, "order": order, "item": item, "quantity": quantity} for id_, order, item, quantity in rows]

    def stock(self) -> dict[str, int]:
        """How many of each item are left."""
        return dict(self._database.execute("SELECT item, remaining FROM stock ORDER BY item"))

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The shop as an ASGI application: `POST /orders`, `GET /orders`, `GET /stock`."""
        match scope["method"], scope["path"]:
            case "POST", "/orders":
                await self._order(receive, send)
            case "GET", "/orders":
                await _answer(send, 200, self.orders())
            case "GET", "/stock":
                await _answer(send, 200, self.stock())
            case _:
                await _answer(send, 404, {"error": "there is only /orders and /stock"})

    async def _order(self, receive: Any, send: Any) -> None:
        body = await _body(receive)
        if body is None:
            return
        try:
            asked = json.loads(body)
            reference, item, card = str(asked["order"]), str(asked["item"]), str(asked["card"])
            quantity = max(1, int(asked["quantity"]))
        except (ValueError, KeyError, TypeError):
            await _answer(send, 400, {"error": "an order has: order, item, quantity, card"})
            return
        self.note_request(reference)
        try:
            placed = self.place(reference, item, quantity, card)
        except SoldOut:
            await _answer(send, 409, {"error": f"not enough {item} left"})
            return
        await asyncio.sleep(ANSWER_DELAY_MS / 1_000)
        await _answer(send, 201, placed)


def from_environment() -> Shop:
    """The shop in the file `SHOP_DATABASE`, with `SHOP_STOCK` of each item if the file is new."""
    return Shop(Path(os.environ["SHOP_DATABASE"]), int(os.environ["SHOP_STOCK"]))


async def _body(receive: Any) -> bytes | None:
    """The whole content; None if the client left before it had sent everything."""
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _answer(send: Any, status: int, value: Any) -> None:
    body = json.dumps(value).encode() + b"\n"
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
