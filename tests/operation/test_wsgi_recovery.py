"""The completer behind the WSGI door, and its status path: nobody retries, and the operation is done all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from retrysafe import ConfigurationError
from retrysafe.demo.processes import await_ready, child, free_port
from retrysafe.recovery import StillUnknown
from retrysafe.stores.memory import MemoryStore
from retrysafe.wsgi import IdempotencyMiddleware
from tests.doors.servers import Shop, command, serving, until
from tests.gateway.processes import environment

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
        done = subprocess.run(
            [sys.executable, "-m", "retrysafe", "recover", target, "--once", "--json"], cwd=tmp_path, text=True,
            capture_output=True, check=True, env=environment(**settings),
        )  # fmt: skip
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


def test_settings_that_do_not_go_together():
    """As for the ASGI door: requests are never stored in the clear; an interval needs something to do."""

    def door(**settings):
        return IdempotencyMiddleware(lambda *_: [], store=MemoryStore(), scope="anonymous", **settings)

    with pytest.raises(ConfigurationError, match="encryption_keys"):
        door(reauthenticate=lambda _: None)
    with pytest.raises(ConfigurationError, match="nothing to do"):
        door(complete_abandoned="1s")
    assert door(reconcile=lambda _: StillUnknown()).recovers
