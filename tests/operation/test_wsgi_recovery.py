"""The completer behind the WSGI door, and its status path: nobody retries, and the operation is done all the same."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from pathlib import Path

import pytest

from retrysafe import ConfigurationError, operation
from retrysafe.demo.processes import await_ready, free_port
from retrysafe.model import State
from retrysafe.operation.recovery import Fared
from retrysafe.protocol.transitions import ListRecords
from retrysafe.recovery import Identity, StillUnknown
from retrysafe.stores.memory import MemoryStore
from retrysafe.wsgi import IdempotencyMiddleware
from tests import forked
from tests.doors.servers import Shop, command, serving, until
from tests.doors.test_wsgi import ask
from tests.drive.harness import ManualClock
from tests.forked import child
from tests.gateway.processes import environment
from tests.operation.abandoned import KEYS, LEASE_MS, RERUN, SECRET, leave

ROOT = Path(__file__).parents[2]
LEASE = "300ms"
TARGET = "POST /rerun/told"


@pytest.fixture
def name():
    """A name for what a test does; also its key."""
    return uuid.uuid4().hex


def _abandon(place, name):
    """Kill the process in the middle of the handler, after its effect."""
    with serving("waitress", place, SHOP_LEASE=LEASE, SHOP_RECOVERS="") as shop:
        shop.shut("armed-after-effect")
        assert shop.ask(TARGET, key=name, name=name, sized=True).status == 0
        assert shop.process.process.wait(10) == -9
        assert shop.ledger("effect", name) == 1


def test_a_door_completes_what_was_abandoned(tmp_path, name):
    """Each process looks for itself, from its first protected request on; here under gunicorn, after a fork."""
    _abandon(tmp_path, name)
    port = free_port()
    settings = {"SHOP_PLACE": str(tmp_path), "SHOP_LEASE": LEASE, "SHOP_RECOVERS": "100ms"}
    module = (*command("gunicorn with threads", port), "--preload")
    with child("gunicorn", module, port, tmp_path, settings) as process:
        await_ready(process, "/ready")
        shop = Shop(process, tmp_path)
        shop.ask(key=f"{name}-other", name="other")
        until(lambda: shop.ledger("end", name) == 1)
        retry = shop.ask(TARGET, key=name, name=name, sized=True)
        assert (retry.status, retry.body, retry.replayed) == (201, f"order {name}".encode(), True)
        assert shop.ledger("effect", name) == 2


@pytest.mark.parametrize("target", ["tests.doors.wsgi_apps:door", "tests.operation.flask_recovered:app"])
def test_the_command_completes_what_was_abandoned(tmp_path, name, target):
    """`retrysafe recover MODULE:APP`, of the door itself and of a Flask application around it."""
    _abandon(tmp_path, name)
    paths = os.pathsep.join([environment()["PYTHONPATH"], str(ROOT)])
    settings = {"PYTHONPATH": paths, "SHOP_PLACE": str(tmp_path), "SHOP_LEASE": LEASE, "SHOP_RECOVERS": ""}
    reports = []

    def driven():
        words = ("retrysafe", "recover", target, "--once", "--json")
        done = forked.run(*words, cwd=tmp_path, env=environment(**settings))
        assert done.returncode == 0, done.stderr
        reports.append(json.loads(done.stdout))
        return reports[-1]["driven"]

    until(driven)
    assert reports[-1]["driven"] == 1
    with serving("waitress", tmp_path, SHOP_LEASE=LEASE, SHOP_RECOVERS="") as shop:
        retry = shop.ask(TARGET, key=name, name=name, sized=True)
        assert (retry.replayed, shop.ledger("effect", name)) == (True, 2)


def test_the_status_of_a_key(tmp_path, name):
    """By GET, and by nothing else; of another account nothing is known."""
    with serving("waitress", tmp_path) as shop:
        shop.ask(key=name, name=name)
        known = shop.ask("GET /keys", key=name, content=b"")
        assert (known.status, json.loads(known.body)["state"]) == (200, "completed")
        assert shop.ask("GET /keys", key=name, account="bob", content=b"").code == "key-unknown"
        assert shop.ask("POST /keys", key=name, content=b"").status == 405


class Orders:
    """A door over a store on a clock in the hand of the test; its application does as it is told."""

    def __init__(self, **settings):
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        self.store.open(SECRET)
        self.seen = []
        self.does = lambda: "201 Created"
        settings = {
            "scope": "header:X-Account", "policy": RERUN, "encryption_keys": KEYS, "secret": SECRET,
            "reauthenticate": lambda _: Identity(), **settings,
        }  # fmt: skip
        self.door = IdempotencyMiddleware(self._application, store=self.store, **settings)

    def _application(self, environ, start_response):
        self.seen.append(environ)
        start_response(self.does(), [])
        return [b"done"]

    def abandon(self, path="/orders", **request):
        """One request whose process was killed in its handler; its lease has lapsed, and it is due."""
        left = leave(self.store, path, **request)
        self.clock.now_ms += LEASE_MS + 1_000
        return left

    def recover(self):
        """One pass; how records fared."""
        self.door.open()
        counts = asyncio.run(self.door.recover()).counts
        return {fared: count for fared, count in counts.items() if count}


def test_what_an_earlier_attempt_did_is_not_forgotten():
    """It is refused before any handling when it is sent again: the steps of the attempt that was killed stay."""
    charges = []

    def charge():
        operation().step("charge", lambda call: charges.append(call.attempt))
        return "201 Created"

    def refuse():
        operation().not_run()
        return "503 Busy"

    orders = Orders()
    orders.abandon().step("charge", lambda call: charges.append(call.attempt))
    orders.does = refuse
    assert orders.recover() == {Fared.DRIVEN: 1}
    orders.does = charge
    request = {"content": b'{"item": 7}', "QUERY_STRING": "q=%31"}
    assert ask(orders.door, "POST /orders", **request).status == 201
    assert charges == [1]


def test_a_scope_that_fails_hurts_nobody_else(caplog):
    """The application's function is given a request without what a middleware leaves: the others are sent again."""

    def account(environ):
        return {"alice": "alice"}[environ["HTTP_X_ACCOUNT"]]

    orders = Orders(scope=account)
    orders.abandon(key="k-1", account="bob")
    orders.abandon(key="k-2")
    assert orders.recover() == {Fared.FAILED: 1, Fared.DRIVEN: 1}
    assert "KeyError" in caplog.text


def test_a_handler_that_would_end_its_process_hurts_nobody_else(caplog):
    """`sys.exit()` in a handler: the outcome of that request is unknown, and the rest of them are sent again."""
    orders = Orders()

    def leaves_once():
        if len(orders.seen) == 1:
            sys.exit(1)
        return "201 Created"

    orders.does = leaves_once
    for key in ("k-1", "k-2"):
        orders.abandon(key=key)
    orders.recover()
    page = orders.store.perform(ListRecords(tuple(State)))
    assert {listed.record.state for listed in page.records} == {State.UNKNOWN, State.COMPLETED}
    assert "SystemExit" in caplog.text


@pytest.mark.parametrize(
    ("stored", "root", "path"),
    [
        ("/orders/%FF", "", "/orders/\xff"),
        ("/caf%C3%A9/orders", "/caf\xc3\xa9", "/orders"),
        ("/shop", "/shop", ""),
    ],
)
def test_a_path_is_sent_again_as_it_was(stored, root, path):
    """Whatever bytes are in it, and wherever the application is mounted."""
    orders = Orders()
    orders.abandon(stored, root=root)
    assert orders.recover() == {Fared.DRIVEN: 1}
    (seen,) = orders.seen
    assert seen["PATH_INFO"] == path


def test_settings_that_do_not_go_together():
    """As for the ASGI door: requests are never stored in the clear; an interval needs something to do."""

    def door(**settings):
        return IdempotencyMiddleware(lambda *_: [], store=MemoryStore(), scope="anonymous", **settings)

    with pytest.raises(ConfigurationError, match="encryption_keys"):
        door(reauthenticate=lambda _: None)
    with pytest.raises(ConfigurationError, match="nothing to do"):
        door(complete_abandoned="1s")
    assert door(reconcile=lambda _: StillUnknown()).recovers
