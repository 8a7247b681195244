"""A refund desk for agents: a server of the Model Context Protocol whose refunds and their records are one commit."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import anyio
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import BaseModel, Field

from retrysafe import Policy, operation
from retrysafe.mcp import Idempotency

FILE = os.environ.get("DESK_FILE", "desk.db")
RECEIPT_S = float(os.environ.get("DESK_RECEIPT_S", "0"))  # how slow the printer of receipts is
PAID_CENTS = {"o-1": 5_000, "o-2": 1_200}

server = MCPServer("refund-desk")
idempotency = Idempotency(
    store=f"sqlite:///{FILE}",
    scope="account:desk",  # over stdio there is one user, who has started it
    policy=Policy(transactional=True, lease="10s", lifetime="7d"),
)


class Refund(BaseModel):
    """What a customer got back."""

    number: int
    order: str
    cents: int


@contextmanager
def books() -> Iterator[sqlite3.Connection]:
    """The books of the desk, which are in the file that has the records."""
    connection = sqlite3.connect(FILE, isolation_level=None, timeout=20)
    try:
        connection.execute("CREATE TABLE IF NOT EXISTS refunds (number INTEGER PRIMARY KEY, name TEXT, cents INTEGER)")
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        connection.execute("COMMIT")
    finally:
        connection.close()  # what was not committed is undone


def give_back(order: str, cents: int) -> Refund:
    """The refund and its record: one commit."""
    with books() as connection:
        (given,) = connection.execute("SELECT total(cents) FROM refunds WHERE name = ?", [order]).fetchone()
        if given + cents > PAID_CENTS.get(order, 0):
            operation().no_effect()
            raise ToolError(f"the customer paid {PAID_CENTS.get(order, 0)} cents for {order} and got {given:.0f} back")
        number = connection.execute("INSERT INTO refunds (name, cents) VALUES (?, ?)", [order, cents]).lastrowid or 0
        refund = Refund(number=number, order=order, cents=cents)
        operation().complete_within(connection, refund.model_dump())
    return refund


@idempotency.tool(server)
async def refund(order: str, cents: Annotated[int, Field(gt=0)]) -> Refund:
    """Give a customer back what they paid for an order, or a part of it."""
    done = await anyio.to_thread.run_sync(give_back, order, cents)
    await anyio.sleep(RECEIPT_S)
    return done


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def refunds(order: str) -> list[int]:
    """What a customer has got back for an order, in cents."""
    with books() as connection:
        return [cents for (cents,) in connection.execute("SELECT cents FROM refunds WHERE name = ?", [order])]


if __name__ == "__main__":
    server.run()
