"""`contract_path`: the door says what it promises, and its problems say where."""

from __future__ import annotations

import json
from typing import Any

import pytest

from retrysafe import ConfigurationError, Policy
from retrysafe.stores.memory import MemoryStore
from retrysafe.wsgi import IdempotencyMiddleware as WsgiDoor
from tests.doors.connections import ask, protected
from tests.doors.handlers import Shop
from tests.doors.test_wsgi import Server, environ_of
from tests.drive.harness import in_loop

PATH = "/.well-known/idempotency-contract"


@in_loop
async def test_it_says_what_holds():
    """To anybody, without a key and an account; the application does not see it."""
    shop = Shop()
    routes = {"POST /pay/{n}": Policy(required=True, lifetime="90m"), "POST /find": None}
    door = protected(shop, contract_path=PATH, routes=routes)
    answer = await ask(door, f"GET {PATH}", key=None, account=None)
    said = json.loads(answer.body)
    assert (answer.status, shop.effects) == (200, 0)
    assert said["default"]["methods"] == ["POST", "PATCH"]
    assert [(it["path"], it["supported"]) for it in said["routes"]] == [("/pay/{n}", True), ("/find", False)]
    assert said["routes"][0]["lifetime"] == "PT1H30M"
    assert said["default"]["scope"] == "header:X-Account"


@in_loop
async def test_other_methods():
    """HEAD has the fields alone, and POST is not for here."""
    door = protected(Shop(), contract_path=PATH)
    head, get = await ask(door, f"HEAD {PATH}"), await ask(door, f"GET {PATH}")
    assert (head.status, head.body, head.headers) == (200, b"", get.headers)
    assert (await ask(door, f"POST {PATH}")).status == 405


@in_loop
async def test_problems_link_to_it():
    """From where the application is mounted, with what is in that path escaped; and not where it is off."""
    door = protected(Shop(), contract_path=PATH, policy=Policy(required=True))
    refused = await ask(door, "POST /a b/orders", key=None, root_path='/a b"')
    assert f'</a%20b%22{PATH}>; rel="service-meta"' in refused.values("link")
    assert len((await ask(protected(Shop(), policy=Policy(required=True)), key=None)).values("link")) == 1
    mounted = await ask(door, f"GET /shop{PATH}", root_path="/shop")
    assert mounted.status == 200


def test_the_wsgi_door():
    """It says the same."""
    routes = {"POST /pay": Policy(required=True)}
    settings: dict[str, Any] = {"store": MemoryStore(), "scope": "header:X-Account", "contract_path": PATH}
    door = WsgiDoor(_never_called, routes=routes, **settings)
    answer = Server().serve(door, environ_of(f"GET {PATH}"))
    plain = protected(Shop(), routes=routes)
    assert (answer.status, json.loads(answer.body)) == (200, plain.published().document())
    assert Server().serve(door, environ_of(f"HEAD {PATH}")).body == b""
    assert Server().serve(door, environ_of(f"POST {PATH}")).status == 405
    mounted = environ_of("POST /pay", key=None, SCRIPT_NAME="/shop")
    assert f'</shop{PATH}>; rel="service-meta"' in Server().serve(door, mounted).values("link")
    with pytest.raises(ConfigurationError, match="contract_path"):
        WsgiDoor(_never_called, **{**settings, "contract_path": "contract"})


def _never_called(*_: Any) -> list[bytes]:
    raise AssertionError("the door answers by itself")


@pytest.mark.parametrize("path", ["contract", "/a b", "/a?b", "/%61", 7])
def test_a_path_that_is_none(path):
    """It is refused at the start."""
    with pytest.raises(ConfigurationError, match="contract_path"):
        protected(Shop(), contract_path=path)
