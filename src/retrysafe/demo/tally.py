"""What really happened, read from a shop's own tables, and what that says."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from retrysafe.demo.client import Traffic
from retrysafe.demo.plan import Order, stock_needed

# A duplicate is a charge beyond the first for the same order reference.
_DUPLICATES = """
SELECT count(*), coalesce(sum(amount_cents), 0) FROM charges
WHERE id NOT IN (SELECT min(id) FROM charges GROUP BY reference)
"""


@dataclass(frozen=True, slots=True)
class Tally:
    """One shop's tables, against what was intended.

    Attributes:
        intended: orders in the plan.
        missing: intended orders that the shop does not have.
        orders: rows in the shop's orders.
        charges: rows in the shop's charges.
        duplicates: charges beyond the first of an order.
        overcharged_cents: the sum of these.
        stock: what the shop has left.
        stock_expected: what it would have left if every order were placed once.
        requests: orders that arrived at the shop, whatever became of them.
    """

    intended: int
    missing: int
    orders: int
    charges: int
    duplicates: int
    overcharged_cents: int
    stock: int
    stock_expected: int
    requests: int


def read_tally(database: Path, plan: Sequence[Order], stock_before: int) -> Tally:
    """Count what stands in a shop's file; nothing is written to it.

    Args:
        database: the shop's file.
        plan: what was intended.
        stock_before: what the shop had when it opened, all items together.
    """
    with closing(_tables(database)) as tables:
        placed = {reference for (reference,) in tables.execute("SELECT DISTINCT reference FROM orders")}
        duplicates, overcharged_cents = tables.execute(_DUPLICATES).fetchone()
        return Tally(
            intended=len(plan),
            missing=sum(order.reference not in placed for order in plan),
            orders=_number(tables, "SELECT count(*) FROM orders"),
            charges=_number(tables, "SELECT count(*) FROM charges"),
            duplicates=duplicates,
            overcharged_cents=overcharged_cents,
            stock=_number(tables, "SELECT sum(remaining) FROM stock"),
            stock_expected=stock_before - stock_needed(plan),
            requests=_number(tables, "SELECT count(*) FROM requests"),
        )


def arrivals(database: Path) -> int:
    """How many orders have arrived at the shop so far, whatever became of them."""
    with closing(_tables(database)) as tables:
        return _number(tables, "SELECT count(*) FROM requests")


def suppressed(tally: Tally, traffic: Traffic) -> int:
    """Requests that were sent whole to the gateway and that it did not pass on to the shop."""
    return traffic.sent_whole - tally.requests


def findings(bare: Tally, protected: Tally, traffic: Traffic) -> list[str]:
    """What is wrong, one sentence each; nothing if the demo shows what it should.

    Args:
        bare: of the shop without protection.
        protected: of the shop behind the gateway.
        traffic: what the client of the protected shop saw.
    """
    wrong = []
    if protected.duplicates:
        wrong.append(f"The protected shop charged {protected.duplicates} times too often: a defect of retrysafe.")
    if protected.missing:
        wrong.append(f"The protected shop lacks {protected.missing} of the orders.")
    if (protected.orders, protected.charges) != (protected.intended, protected.intended):
        wrong.append(
            f"The protected shop has {protected.orders} orders and {protected.charges} charges "
            f"where {protected.intended} were intended."
        )
    if protected.stock != protected.stock_expected:
        wrong.append(f"The protected shop has {protected.stock} in stock and should have {protected.stock_expected}.")
    if traffic.unanswered:
        wrong.append(f"The client was never told how {traffic.unanswered} of the protected orders ended.")
    if not bare.duplicates:
        wrong.append("The bare shop shows no duplicate, so this run proves nothing: a fault of the demo.")
    return wrong


def _tables(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)


def _number(tables: sqlite3.Connection, query: str) -> int:
    (number,) = tables.execute(query).fetchone()
    return int(number)
