"""The completer and the reconciler behind Django's middleware, in both of its modes; and what is read of a project."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

import pytest

from retrysafe.django.settings import configuration
from retrysafe.errors import ConfigurationError
from tests import forked
from tests.doors.servers import until
from tests.doors.test_django import MODULE, manage, served
from tests.gateway.processes import environment
from tests.operation.django_setup import set_up

set_up()

from django.test import override_settings  # noqa: E402 - Django is set up first

ROOT = Path(__file__).parents[2]
LEASE = "300ms"
APPLICATION = f"{MODULE}:application"
MODES = {"blocking": {}, "asyncio": {"SHOP_ASYNC": "yes"}}


@pytest.fixture
def name():
    """A name for what a test does; also its key."""
    return uuid.uuid4().hex


@pytest.fixture
def place(tmp_path):
    """A project whose tables are made."""
    manage(tmp_path, "migrate", "--verbosity", "0")
    return tmp_path


def abandon(place, name, target="POST /named/{}", account="alice", server="waitress"):
    """Kill the process in the middle of the view, after its effect."""
    with served(server, place, SHOP_LEASE=LEASE) as shop:
        shop.shut("armed-after-effect")
        assert shop.ask(target.format(name), key=name, account=account, name=name).status == 0
        assert shop.process.process.wait(10) == -9


def command(place, *words, **settings):
    """A command beside the project, as JSON; its exit code and what it printed."""
    paths = os.pathsep.join([environment()["PYTHONPATH"], str(ROOT)])
    variables = {"PYTHONPATH": paths, "SHOP_PLACE": str(place), "SHOP_LEASE": LEASE, **settings}
    done = forked.run("retrysafe", *words, "--json", cwd=place, env=environment(**variables))
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def recovered(place, mode):
    """What `retrysafe recover` came to, once something was done."""
    reports = []

    def done():
        reports.append(command(place, "recover", APPLICATION, "--once", **MODES[mode]))
        return reports[-1][1]["driven"] or reports[-1][1]["found_completed"]

    until(done)
    return reports[-1]


@pytest.mark.parametrize("mode", MODES)
def test_the_command_completes_what_was_abandoned(place, name, mode):
    """It is sent again in the name of its account; whoever is gone is told, and left alone."""
    abandon(place, f"{name}-gone", account="gone")
    abandon(place, name)
    code, report = recovered(place, mode)
    assert (code, report["identity_gone"], report["driven"]) == (1, 1, 1)
    with served("waitress", place, SHOP_LEASE=LEASE) as shop:
        retry = shop.ask(f"POST /named/{name}", key=name, name=name)
        effects = [shop.ledger("effect", it) for it in (name, f"{name}-gone")]
    assert (retry.replayed, json.loads(retry.body)) == (True, {"by": "alice", "name": name, "attempt": 2})
    assert effects == [2, 1]


def test_what_may_not_run_again_is_asked_about(place, name):
    """On a thread, where a project may look into its databases."""
    abandon(place, name, "POST /marked")
    assert recovered(place, "asyncio")[1]["found_completed"] == 1
    with served("waitress", place, SHOP_LEASE=LEASE) as shop:
        asked = shop.ask("POST /marked", key=name, name=name)
        assert (asked.replayed, json.loads(asked.body)) == (True, {"found": "POST /marked"})
        assert shop.ledger("effect", name) == 1


@pytest.mark.parametrize("server", ["waitress", "uvicorn"])
def test_a_process_completes_what_was_abandoned(place, name, server):
    """Each looks for itself, from its start or its first protected request on."""
    abandon(place, name)
    with served(server, place, SHOP_LEASE=LEASE, SHOP_RECOVERS="100ms") as shop:
        shop.ask(key=f"{name}-other", name="other")
        until(lambda: shop.ledger("effect", name) == 2)
        retry = shop.settled(f"POST /named/{name}", key=name, name=name)
        assert (retry.status, retry.replayed, shop.ledger("effect", name)) == (201, True, 2)


def test_the_contract_of_a_project(tmp_path):
    """Read from its application; nothing is served, and no store is opened."""
    _, document = command(tmp_path, "contract", APPLICATION, SHOP_PLACE="/nowhere/at/all")
    routes = {f"{it['method']} {it['path']}": it for it in document["routes"]}
    assert (routes["POST /named/{name}"]["abandoned"], document["status"]) == ("runs again", "/idempotency/requests")


@pytest.mark.parametrize(("said", "words"), [
    ({"REAUTHENTICATE": "builtins.str"}, "REAUTHENTICATE is set.*set ENCRYPTION_KEYS"),
    ({"COMPLETE_ABANDONED": "1s"}, "COMPLETE_ABANDONED is set, and neither REAUTHENTICATE nor RECONCILE"),
    ({"COMPLETE_ABANDONED": "often", "RECONCILE": "builtins.str"}, "COMPLETE_ABANDONED: "),
    ({"STATUS_PATH": "keys"}, "STATUS_PATH is 'keys'"),
    ({"CONTRACT_PATH": "keys"}, "CONTRACT_PATH is 'keys'"),
])  # fmt: skip
def test_settings_that_cannot_be(said, words):
    """Each is told by its name."""
    with override_settings(IDEMPOTENCY={"STORE": "memory://", **said}), pytest.raises(ConfigurationError, match=words):
        configuration()
