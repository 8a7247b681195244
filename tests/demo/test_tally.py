from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from retrysafe.demo.client import Traffic
from retrysafe.demo.plan import Order, make_plan, stock_needed
from retrysafe.demo.shop import PRICES_CENTS, Shop
from retrysafe.demo.tally import Tally, findings, read_tally, suppressed

PLAN = make_plan(10, 1)
STOCK = 100
STOCK_BEFORE = STOCK * len(PRICES_CENTS)
ONCE = Tally(
    intended=10,
    missing=0,
    orders=10,
    charges=10,
    duplicates=0,
    overcharged_cents=0,
    stock=STOCK_BEFORE - stock_needed(PLAN),
    stock_expected=STOCK_BEFORE - stock_needed(PLAN),
    requests=10,
)
TWICE = replace(ONCE, orders=12, charges=12, duplicates=2, overcharged_cents=1_350, stock=ONCE.stock - 3)
ANSWERED = Traffic(sent_whole=15, replayed=4, told_to_wait=1, unanswered=0)


def place(database: Path, *orders: Order) -> Tally:
    """A shop's file in which these were placed, one after the other."""
    shop = Shop(database, STOCK)
    for order in orders:
        shop.note_request(order.reference)
        shop.place(order.reference, order.item, order.quantity, "card")
    shop.close()
    return read_tally(database, PLAN, STOCK_BEFORE)


def test_a_shop_that_placed_everything_once(tmp_path):
    """Nothing missing, nothing twice, and the stock is what it should be."""
    assert place(tmp_path / "shop.db", *PLAN) == ONCE


def test_a_duplicate_is_a_charge_beyond_the_first(tmp_path):
    """An order placed three times has two duplicates, and what they cost is what the customer paid too much."""
    order = PLAN[3]
    larger = replace(order, quantity=order.quantity + 1)
    tally = place(tmp_path / "shop.db", *PLAN, order, larger)
    assert tally == replace(
        ONCE,
        orders=12,
        charges=12,
        duplicates=2,
        overcharged_cents=(order.quantity + larger.quantity) * PRICES_CENTS[order.item],
        stock=ONCE.stock - order.quantity - larger.quantity,
        requests=12,
    )
    assert findings(TWICE, tally, ANSWERED)[0].startswith("The protected shop charged 2 times too often")


def test_a_missing_order_does_not_hide_behind_a_duplicate(tmp_path):
    """Ten charges for ten intents are not enough: they must be the right ones."""
    database = tmp_path / "shop.db"
    shop = Shop(database, STOCK)
    shop.note_request(PLAN[9].reference)  # it arrived, and nothing came of it
    shop.close()
    tally = place(database, *PLAN[:9], PLAN[0])
    assert (tally.charges, tally.missing, tally.duplicates, tally.requests) == (10, 1, 1, 11)


def test_reading_writes_nothing(tmp_path):
    """A tally is no reason for a file to appear."""
    with pytest.raises(sqlite3.OperationalError):
        read_tally(tmp_path / "none.db", PLAN, STOCK_BEFORE)
    assert list(tmp_path.iterdir()) == []


def test_suppressed_is_what_did_not_reach_the_shop():
    """Fifteen were sent whole and ten arrived."""
    assert suppressed(ONCE, ANSWERED) == 5


@pytest.mark.parametrize(
    ("bare", "protected", "traffic", "says"),
    [
        (TWICE, ONCE, ANSWERED, []),
        (ONCE, ONCE, ANSWERED, ["a fault of the demo"]),
        (TWICE, TWICE, ANSWERED, ["2 times too often", "12 orders and 12 charges", "in stock"]),
        (TWICE, replace(ONCE, missing=1, orders=9, charges=9), ANSWERED, ["lacks 1", "9 orders and 9 charges"]),
        (TWICE, replace(ONCE, orders=11), ANSWERED, ["11 orders and 10 charges"]),
        (TWICE, replace(ONCE, stock=ONCE.stock - 1), ANSWERED, ["in stock"]),
        (TWICE, ONCE, replace(ANSWERED, unanswered=3), ["never told how 3"]),
    ],
)
def test_findings_say_what_is_wrong_and_nothing_else(bare, protected, traffic, says):
    """Each thing that can be wrong has its sentence, and a good run has none."""
    found = findings(bare, protected, traffic)
    assert len(found) == len(says)
    assert all(part in finding for part, finding in zip(says, found, strict=True))
