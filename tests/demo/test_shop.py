from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from retrysafe.demo.shop import PRICES_CENTS, Shop, SoldOut

ORDER = {"order": "order-1", "item": "tea", "quantity": 2, "card": "card-1"}


@pytest.fixture
def shop(tmp_path):
    opened = Shop(tmp_path / "shop.db", 5)
    yield opened
    opened.close()


def ask(shop: Shop, method: str, path: str, *messages: Any) -> Any:
    """One request to the application; the status and the value of its answer, None if there was none."""
    arriving: list[Any] = list(messages)
    sent: list[Any] = []

    async def receive() -> Any:
        return arriving.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(shop({"type": "http", "method": method, "path": path}, receive, send))
    return (sent[0]["status"], json.loads(sent[1]["body"])) if sent else None


def whole(value: Any) -> Any:
    return {"type": "http.request", "body": json.dumps(value).encode()}


def test_an_order_takes_stock_and_charges_once(shop):
    """One request is one order, one charge, and the stock that it took."""
    status, placed = ask(shop, "POST", "/orders", whole(ORDER))
    assert (status, placed["amount_cents"]) == (201, 2 * PRICES_CENTS["tea"])
    assert [order["order"] for order in shop.orders()] == ["order-1"]
    assert ask(shop, "GET", "/stock")[1]["tea"] == 3


def test_the_bare_shop_does_not_know_what_a_retry_is(shop):
    """The same request again is another order: this is what the demo is about."""
    for _ in range(2):
        assert ask(shop, "POST", "/orders", whole(ORDER))[0] == 201
    assert len(ask(shop, "GET", "/orders")[1]) == 2


def test_half_a_request_is_no_order(shop):
    """A client that leaves while it sends has no effect and gets no answer."""
    first = {"type": "http.request", "body": json.dumps(ORDER).encode()[:20], "more_body": True}
    assert ask(shop, "POST", "/orders", first, {"type": "http.disconnect"}) is None
    assert shop.orders() == []


def test_sold_out_charges_nobody(shop):
    """Stock and charge happen together or not at all."""
    assert ask(shop, "POST", "/orders", whole({**ORDER, "quantity": 6}))[0] == 409
    with pytest.raises(SoldOut):
        shop.place("order-2", "no such item", 1, "card-1")
    assert (shop.orders(), shop.stock()["tea"]) == ([], 5)


@pytest.mark.parametrize("asked", [{}, [], "tea", {**ORDER, "quantity": "many"}])
def test_what_is_no_order_is_refused(shop, asked):
    """A malformed order is the client's mistake."""
    assert ask(shop, "POST", "/orders", whole(asked))[0] == 400


def test_there_is_nothing_else(shop):
    """Any other place is not found."""
    assert ask(shop, "DELETE", "/orders")[0] == 404


def test_a_shop_that_opens_again_keeps_its_stock(shop, tmp_path):
    """Opening a shop's file again fills no shelf."""
    shop.place("order-1", "tea", 5, "card-1")
    again = Shop(tmp_path / "shop.db", 5)
    assert again.stock()["tea"] == 0
    again.close()
