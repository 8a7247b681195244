"""The routes table."""

import pytest

from retrysafe import ConfigurationError, Policy
from retrysafe.server.routes import Routes

LONG = "POST /" + 249 * "x"  # 255 characters, which a store must be able to keep
DEFAULT, EXACT, TEMPLATE, REST = Policy(), Policy(required=True), Policy(lifetime="1h"), Policy(lifetime="2h")
ROUTES = Routes(
    DEFAULT,
    {
        "POST /orders/{id}/refund": TEMPLATE,
        "POST /orders/all/refund": EXACT,
        "POST /files/{path:path}": REST,
        "PUT /stock/{item}": TEMPLATE,
        "POST /search": None,
        "POST /a.b": EXACT,
    },
)


@pytest.mark.parametrize(
    ("method", "path", "policy"),
    [
        ("POST", "/orders", DEFAULT),
        ("PATCH", "/orders/1", DEFAULT),
        ("PUT", "/orders/1", None),
        ("PUT", "/stock/nut", TEMPLATE),
        ("DELETE", "/stock/nut", None),
        ("GET", "/search", None),
        ("POST", "/search", None),
        ("POST", "/orders/7/refund", TEMPLATE),
        ("POST", "/orders/all/refund", EXACT),
        ("POST", "/orders/7/8/refund", DEFAULT),
        ("POST", "/orders//refund", DEFAULT),
        ("POST", "/files/a/b/c", REST),
        ("POST", "/a.b", EXACT),
        ("POST", "/axb", DEFAULT),
        ("POST", "/orders/a\nb/refund", TEMPLATE),
    ],
)
def test_which_policy_holds(method, path, policy):
    """Fixed paths before templates, the table before the default, nothing for methods that are not enrolled."""
    route = ROUTES.find(method, path)
    assert (route and route.policy) is policy


def test_methods_that_no_entry_enrols_cost_a_look_into_a_set():
    """What the door asks first."""
    assert ROUTES.methods == {"POST", "PATCH", "PUT"}


def test_a_faulty_table_says_everything_at_once():
    """Each entry that cannot be one is named."""
    with pytest.raises(ConfigurationError) as raised:
        Routes(DEFAULT, dict.fromkeys(["orders", "GET /orders", "post /x", "POST /fine", LONG, LONG + "y"], DEFAULT))
    assert len(raised.value.faults) == 4
    assert all(f'"{entry}"' in str(raised.value) for entry in ("orders", "GET /orders", "post /x", LONG + "y"))


@pytest.mark.parametrize("character", ["\0", "\x1f", "\x7f", "\udcff"])
def test_an_entry_has_no_character_that_a_store_cannot_keep(character):
    """A text in PostgreSQL has no NUL, and UTF-8 no half of a pair: that is found at the start, not at each claim."""
    with pytest.raises(ConfigurationError):
        Routes(DEFAULT, {f"POST /a{character}": DEFAULT})
