"""The example `checkout_browser` behind a network that can be hurt, and what is in its books."""

from __future__ import annotations

import json
import secrets
import socket
import sqlite3
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, Page, expect

from retrysafe.demo.processes import Child, await_ready, free_port
from retrysafe.faults import ChaosProxy, Fault, Nothing
from tests.client.network import Network
from tests.forked import child

EXAMPLE = Path(__file__).parents[2] / "examples" / "checkout_browser"


class Tickets:
    """The shop: `url` is where the network leads to it, `direct` is past the network.

    Args:
        server: its process.
        proxy: the network.
        database: its orders.
        faults: what the next requests meet, in their order.

    Attributes:
        met: what the requests so far have met.
    """

    def __init__(self, server: Child, proxy: ChaosProxy, database: Path, faults: deque[Fault]) -> None:
        self.direct, self.url, self.faults, self.met = server.url, f"http://127.0.0.1:{proxy.port}", faults, proxy.met
        self._database = database

    def open(self, context: BrowserContext, cart: str | None = None) -> Page:
        """The page of a cart, a new one if none is named, once it has asked what became of it."""
        page = context.new_page()
        page.goto(f"/carts/{cart or secrets.token_hex(4)}")
        page.wait_for_selector("body[data-ready]")
        return page

    def orders(self, page: Page) -> list[tuple[int, int]]:
        """Number and quantity of what was ordered from the cart of a page."""
        with closing(self._connected()) as connection:
            rows = connection.execute("SELECT number, quantity FROM orders WHERE cart = ?", (cart_of(page),))
            return rows.fetchall()

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """No order is written for as long as the context lasts: handlers wait."""
        with closing(self._connected()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.rollback()

    def state_of(self, page: Page) -> str | None:
        """What the server says of the key of a page, past the network."""
        entries = keys(page, ["localStorage"])
        if not entries:
            return None
        headers = {"Idempotency-Key": json.loads(entries[0])["key"]}
        answer = page.context.request.get(f"{self.direct}/idempotency/requests", headers=headers)
        state: str | None = answer.json().get("state")
        return state

    def answer_bytes(self) -> int:
        """How long the answer to an order is, head and all."""
        body = b"quantity=1"
        head = "POST /carts/0/orders HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\nCookie: shopper=0\r\n"
        head += f"Content-Length: {len(body)}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        head += f'Idempotency-Key: "{secrets.token_hex(16)}"\r\n\r\n'
        with socket.create_connection(("127.0.0.1", urlsplit(self.direct).port)) as connection:
            connection.sendall(head.encode() + body)
            with connection.makefile("rb") as answer:
                return len(answer.read())

    def _connected(self) -> sqlite3.Connection:
        return sqlite3.connect(self._database, isolation_level=None, timeout=30)


@contextmanager
def tickets(place: Path, network: Network) -> Iterator[Tickets]:
    """The example under uvicorn, which closes each connection after its answer, and the network in front of it."""
    port, faults = free_port(), deque[Fault]()
    line = ("uvicorn", "--app-dir", str(EXAMPLE), "app:app", "--port", str(port), "--header", "connection:close")
    variables = {"PARTNERS": f"http://127.0.0.1:{port}"}
    with child("tickets", line, port, place, variables) as server:
        await_ready(server, "/openapi.json")
        with network.running(server.port, lambda _: faults.popleft() if faults else Nothing()) as proxy:
            yield Tickets(server, proxy, place / "orders.db", faults)


def cart_of(page: Page) -> str:
    """The cart that a page shows."""
    return page.url.rpartition("/")[2]


def order(page: Page, quantity: int | None = None) -> None:
    """Fill in the form, and send it."""
    if quantity is not None:
        page.get_by_label("How many?").fill(str(quantity))
    page.get_by_role("button").click()


def expect_said(page: Page, words: str) -> None:
    """Wait until the page says this."""
    expect(page.get_by_role("status")).to_have_text(words)


def keys(page: Page, names: Sequence[str] = ("sessionStorage", "localStorage")) -> list[str]:
    """What is kept in this tab, and for all, as it is written."""
    return [text for name in names for text in page.evaluate(f"Object.values({name})")]
