from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrysafe.demo.plan import ORDERS_MAX, ORDERS_MIN, Fault, make_plan, stock_needed
from retrysafe.errors import ConfigurationError


@given(st.integers(ORDERS_MIN, 60), st.integers())
def test_every_plan_meets_every_fault_and_is_the_same_again(count, seed):
    """Even the shortest demo meets every fault; a seed replays it; intents do not share a key."""
    plan = make_plan(count, seed)
    assert plan == make_plan(count, seed)
    assert {order.faults[0] for order in plan} == set(Fault)
    assert len({order.key for order in plan}) == len({order.reference for order in plan}) == count


def test_another_seed_is_another_plan():
    """The seed decides what goes wrong."""
    assert [order.faults[0] for order in make_plan(50, 1)] != [order.faults[0] for order in make_plan(50, 2)]


@pytest.mark.parametrize("count", [-1, 0, ORDERS_MIN - 1, ORDERS_MAX + 1])
def test_a_count_out_of_bounds_is_the_callers_fault(count):
    """The message says what was seen and what may be."""
    with pytest.raises(ConfigurationError, match=f"orders is {count}; .* from {ORDERS_MIN} to {ORDERS_MAX}"):
        make_plan(count, 1)


def test_faults_end():
    """After its faults an order is sent plainly, so that each comes to an end."""
    for order in make_plan(100, 1):
        assert order.fault(len(order.faults)) is Fault.NONE


def test_an_order_is_sent_with_the_same_bytes_and_counted_once():
    """What a body asks for is what the expected stock counts."""
    plan = make_plan(30, 1)
    assert all(order.body == order.body for order in plan)
    assert stock_needed(plan) == sum(json.loads(order.body)["quantity"] for order in plan)
