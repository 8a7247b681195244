"""The extension for Flask: which requests it protects, by Flask's own router, and what leaves no record."""

from __future__ import annotations

import sqlite3
import uuid

import pytest
from flask import Flask

from retrysafe import ConfigurationError
from retrysafe.demo.processes import await_ready, free_port
from retrysafe.flask import Idempotency, idempotent
from retrysafe.stores.memory import MemoryStore
from tests.doors.servers import Shop, command
from tests.forked import child


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Under waitress."""
    place, port = tmp_path_factory.mktemp("flask"), free_port()
    module = command("waitress", port, "tests.doors.flask_apps:application")
    with child("waitress", module, port, place, {"SHOP_PLACE": str(place)}) as process:
        await_ready(process, "/ready")
        yield Shop(process, place)


@pytest.fixture
def name():
    return uuid.uuid4().hex


def records(shop):
    with sqlite3.connect(shop.place / "records.db") as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM records").fetchall()
    connection.close()
    return count


@pytest.mark.parametrize("target", ["POST /told", "POST /marked/a", "PUT /marked/a", "DELETE /marked/a", "PUT /item"])
def test_a_retry_gets_the_first_answer(shop, name, target):
    """Of views that are enrolled by the default and by their marks; of one that is a class, of its method."""
    first, again = (shop.ask(target, key=name, name=name) for _ in range(2))
    assert (first.status, again.status, first.replayed, again.replayed) == (201, 201, False, True)
    assert (first.body, shop.ledger("effect", name)) == (again.body, 1)


@pytest.mark.parametrize("target", ["POST /marked/a", "PUT /item"])
def test_a_mark_says_that_a_key_is_required(shop, name, target):
    """It is known before the view runs."""
    assert (shop.ask(target, name=name).code, shop.ledger("effect", name)) == ("key-missing", 0)


@pytest.mark.parametrize("target", ["POST /open", "PUT /told?", "GET /ready"])
def test_what_is_not_enrolled_passes(shop, name, target):
    """Taken out by the table, or of another method."""
    before = records(shop)
    answers = [shop.ask(target, key=name, name=name) for _ in range(2)]
    assert not any(answer.replayed for answer in answers)
    assert records(shop) == before


@pytest.mark.parametrize(("target", "status", "fields"), [
    ("POST /nothing", 404, ()),
    ("POST /ready", 405, ()),
    ("POST /slash", 308, ()),
    ("POST /marked/a", 400, [("X-Refuse", "400")]),
    ("POST /marked/a", 503, [("X-Refuse", "503")]),
])  # fmt: skip
def test_what_is_refused_before_the_view_leaves_no_record(shop, name, target, status, fields):
    """By the router, or in a function that runs before the request: the key is as if it had never been sent."""
    before = records(shop)
    assert shop.ask(target, key=name, name=name, fields=fields).status == status
    assert records(shop) == before
    assert shop.ask("POST /marked/b", key=name, name=name).status == 201


def test_what_the_view_refuses_is_its_answer(shop, name):
    """A 400 of the view itself is recorded: something may have been done before it."""
    answers = [shop.ask("POST /marked/a", key=name, name=name, abort=400) for _ in range(2)]
    assert [(answer.status, answer.replayed) for answer in answers] == [(400, False), (400, True)]
    assert shop.ledger("effect", name) == 1


def test_a_view_that_raises(shop, name):
    """Flask makes a 500 of it, which is recorded: it is not run again."""
    answers = [shop.ask("POST /broken", key=name, name=name) for _ in range(2)]
    assert [(answer.status, answer.replayed) for answer in answers] == [(500, False), (500, True)]
    assert shop.ledger("effect", name) == 1


def _settings(**more):
    return {"store": MemoryStore(), "scope": "anonymous", **more}


@pytest.mark.parametrize(("settings", "fault"), [
    ({}, "store= or IDEMPOTENCY_STORE is required"),
    (_settings(lifetme="7d"), "no setting lifetme"),
    (_settings(lifetime="7 moons"), "policy.lifetime"),
    (_settings(routes={"GET /": None}), "a method that may have keys"),
])  # fmt: skip
def test_faulty_settings(settings, fault):
    """Are told when the extension is made."""
    with pytest.raises(ConfigurationError, match=fault):
        Idempotency(Flask("shop"), **settings)


def test_one_extension_for_each_application():
    """Two would refuse each other."""
    app = Flask("shop")
    Idempotency(**_settings()).init_app(app)
    with pytest.raises(ConfigurationError, match="has an Idempotency already"):
        Idempotency(app, **_settings())


@pytest.mark.parametrize("options", [{"lifetme": "7d"}, {"lifetime": "7 moons"}])
def test_faulty_marks(options):
    """Are told where they are written."""
    with pytest.raises(ConfigurationError):
        idempotent(**options)


def test_a_mark_of_a_class():
    """Has no single entry to watch; its methods are marked instead."""
    with pytest.raises(ConfigurationError, match="functions and methods"):
        idempotent()(type("View", (), {}))


def test_transactional_needs_a_store_that_can():
    """It is told at the first request, when the view is known."""
    app = Flask("shop")
    app.config["PROPAGATE_EXCEPTIONS"] = True
    Idempotency(app, **_settings())
    app.post("/orders")(idempotent(transactional=True)(lambda: "done"))
    with pytest.raises(ConfigurationError, match="POST /orders"):
        app.test_client().post("/orders", headers={"Idempotency-Key": uuid.uuid4().hex})
