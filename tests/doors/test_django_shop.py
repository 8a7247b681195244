"""The shop of examples/shop_django: an order, its stock and its record are one commit; and what people do with it."""

from __future__ import annotations

import json
import os
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path

import psycopg
import pytest

from retrysafe.demo.processes import await_ready, free_port
from tests import forked
from tests.doors.servers import Shop, command, until
from tests.forked import child
from tests.stores import postgres_server

ROOT = Path(__file__).parents[2]
STOCK = 1_000
APPLICATIONS = {
    "gunicorn": "examples.shop_django.wsgi:application",
    "waitress": "examples.shop_django.wsgi:application",
    "uvicorn": "examples.shop_django.asgi:application",
}


def some_of(engines, servers):
    """Each engine and each server once; every pair of them where everything is proved."""
    return [*product(engines, servers)] if os.environ.get("RETRYSAFE_PROVE") else [*zip(engines, servers, strict=True)]


def run(environment, *words):
    """A module in this environment; what it printed."""
    done = forked.run(*words, cwd=ROOT, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def manage(environment, *words):
    return run(environment, "examples.shop_django.manage", *words)


def prepared(engine, place):
    """A new database with customers and lamps; where it is."""
    environment = {"SHOP_LEASE": "1s", "SHOP_DATABASE": str(place / "shop.db")}
    if engine == "postgresql":
        name, server = f"shop_{uuid.uuid4().hex[:8]}", postgres_server.server()
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        environment |= {"SHOP_DATABASE": name, "SHOP_POSTGRES_PORT": str(server.port)}
    run(environment, "tests.doors.shop_setup", str(STOCK))
    return environment


@contextmanager
def serving(server, place, environment, port=None):
    port = port or free_port()
    with child(server, command(server, port, APPLICATIONS[server]), port, place, environment) as process:
        await_ready(process, "/ready")
        yield Shop(process, place)


def order(shop, key, customer="alice", **wish):
    wish = {"item": "lamp", "count": 1, **wish}
    return shop.settled("POST /orders", key=key, account=None, fields=[("Authorization", f"Token {customer}")], **wish)


def asked(shop, key, customer):
    """What became of a key, for a customer whom only the REST framework knows."""
    fields = [("Authorization", f"Token {customer}")]
    answer = shop.ask("GET /idempotency/requests", key=key, account=None, fields=fields, content=b"")
    return answer.code or json.loads(answer.body)["state"]


WISH = {"fields": [("Authorization", "Token alice")], "item": "lamp", "count": 1}


def orders(shop, customer="alice"):
    answer = shop.ask("GET /orders", account=None, fields=[("Authorization", f"Token {customer}")])
    return json.loads(answer.body)["count"]


@pytest.mark.parametrize(("engine", "server"), some_of(["sqlite", "postgresql"], ["gunicorn", "uvicorn"]))
def test_orders(tmp_path, engine, server):
    """Many at once under one key are one order; what is refused before it leaves the key free; accounts are apart."""
    environment = prepared(engine, tmp_path)
    name = uuid.uuid4().hex
    with serving(server, tmp_path, environment) as shop:
        assert order(shop, name, count=0).status == 400
        assert order(shop, name, customer="stranger").code == "scope-missing"
        with ThreadPoolExecutor(8) as clients:
            answers = list(clients.map(lambda _: order(shop, name), range(8)))
        assert {(answer.status, answer.body) for answer in answers} == {(201, answers[0].body)}
        assert order(shop, name, customer="bob").status == 201
        assert (orders(shop), orders(shop, "bob")) == (1, 1)
        told = [asked(shop, name, "alice"), asked(shop, name + "-2", "alice"), asked(shop, name, "stranger")]
        assert told == ["completed", "key-unknown", "scope-missing"]
        refused = [order(shop, name + "-2", count=100, item="chair") for _ in range(2)]
        assert [(answer.status, answer.replayed) for answer in refused] == [(409, False), (409, True)]


@pytest.mark.parametrize(("engine", "server"), some_of(["sqlite", "postgresql"], ["uvicorn", "waitress"]))
def test_the_shop_is_killed_again_and_again(tmp_path, engine, server):
    """While customers order: each key ends as one order, whichever commit the kills fell before or after."""
    environment = prepared(engine, tmp_path)
    names = [uuid.uuid4().hex for _ in range(40)]
    port = free_port()

    def insisting(name):
        pause = threading.Event()
        for _ in range(1_200):  # a view may wait long for SQLite's one writer: in progress is no end, only come again
            with suppress(OSError):
                answer = Shop(current[0], tmp_path).ask("POST /orders", key=name, account=None, **WISH)
                if answer.status == 201:
                    return answer.body
            pause.wait(0.05)
        raise AssertionError("it never came to an end")

    with ThreadPoolExecutor(8) as clients:
        for round_ in range(3):
            with serving(server, tmp_path, environment, port) as shop:
                current = [shop.process]
                if round_ == 0:
                    asked = [clients.submit(insisting, name) for name in names]
                if round_ < 2:
                    until(lambda: orders(shop) > 5 * (round_ + 1))  # noqa: B023 - it is called here
                    shop.process.process.kill()
                else:
                    bodies = [asking.result() for asking in asked]
                    assert len(set(bodies)) == len(names)
                    assert orders(shop) == len(names)
                    last = json.loads(order(shop, uuid.uuid4().hex).body)
                    assert last["left"] == STOCK - len(names) - 1


@pytest.fixture
def doubtful(tmp_path):
    """A shop with a record whose outcome nobody knows; where it is, the key, and its record."""
    environment = prepared("sqlite", tmp_path)
    return environment, run(environment, "tests.doors.shop_doubt").strip()


def test_the_pages_of_the_admin(doubtful):
    """Who may view sees records, who may change resolves them, who may neither gets nothing; nobody adds any."""
    environment, _ = doubtful
    seen = json.loads(run(environment, "tests.doors.shop_pages", "look", "viewer", "nobody"))
    assert seen["nobody"] == {"list": 403}
    assert (seen["viewer"]["page"], seen["viewer"]["form"], seen["viewer"]["faulty"]) == (200, False, 403)
    root = json.loads(run(environment, "tests.doors.shop_pages", "resolve", "root"))["root"]
    assert (root["page"], root["form"], root["faulty"], root["resolved"]) == (200, True, 200, 302)
    assert (root["history"], root["add"] != 200) == (True, True)


def test_the_commands(doubtful, tmp_path):
    """Records are listed, looked at by their id or their key, settled with a trace, and purged."""
    environment, record = doubtful
    (tmp_path / "key").write_text("k-1")
    assert record in manage(environment, "idempotency_keys", "--state", "unknown")
    by_key = ("idempotency_keys", "--account", "1", "--key-file", str(tmp_path / "key"))
    assert "unknown" in manage(environment, *by_key)
    settling = ("--settle", "completed", "--status", "201", "--note", "seen in the books", "--actor", "ann")
    assert "completed" in manage(environment, "idempotency_keys", record[:12], *settling)
    shown = manage(environment, *by_key)
    assert [words in shown for words in ("completed", "ann", "seen in the books")] == [True] * 3
    assert "forgotten" in manage(environment, *by_key, "--settle", "forget", "--note", "a test")
    assert manage(environment, "idempotency_purge").strip() == "0 expired, 0 forgotten"


def test_commands_that_fail(doubtful):
    """They say why, and change nothing."""
    environment, record = doubtful
    for words in (["ffff"], [record, "--settle", "completed"]):
        with pytest.raises(AssertionError, match="CommandError: "):
            manage(environment, "idempotency_keys", *words)
    assert "unknown" in manage(environment, "idempotency_keys", record)
