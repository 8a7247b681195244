"""What there is of Django alone, in both modes: its database, views of each kind, and what refuses before them."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import uuid
from contextlib import contextmanager
from pathlib import Path

import pytest

from retrysafe.demo.processes import await_ready, free_port
from tests import forked
from tests.doors.servers import Shop, command, connect, request_bytes
from tests.forked import child

ROOT = Path(__file__).parents[2]
MODULE = "tests.doors.django_apps"
SERVERS = ("gunicorn", "uvicorn")
STATUS, CONTRACT = "/idempotency/requests", "/.well-known/idempotency-contract"


def manage(place, *words, **environment):
    """A command of Django's; what it printed."""
    done = forked.run(MODULE, *words, cwd=ROOT, env={**os.environ, "SHOP_PLACE": str(place), **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def served(server, place, *options, **environment):
    """A server of the project, with further options; its database is there."""
    environment = {"SHOP_PLACE": str(place), **environment} | ({"SHOP_ASYNC": "yes"} if server == "uvicorn" else {})
    port = free_port()
    words = (*command(server, port, f"{MODULE}:application"), *options)
    with child(server.replace(" ", "-"), words, port, place, environment) as process:
        await_ready(process, "/ready")
        yield Shop(process, place)


@pytest.fixture(scope="module", params=SERVERS)
def shop(request, tmp_path_factory):
    place = tmp_path_factory.mktemp("django")
    manage(place, "migrate", "--verbosity", "0")
    with served(request.param, place) as opened:
        yield opened


@pytest.fixture
def name():
    return uuid.uuid4().hex


def records(shop):
    connection = sqlite3.connect(shop.place / "django.db")
    ((count,),) = connection.execute("SELECT count(*) FROM records").fetchall()
    connection.close()
    return count


@pytest.mark.parametrize("target", [
    "POST /told", "PATCH /told", "POST /marked", "PUT /item", "POST /charges", "POST /atold", "POST /function",
    "POST /actions/ship",
])  # fmt: skip
def test_a_retry_gets_the_first_answer(shop, name, target):
    """Of a view of each kind: enrolled by the default, or by its mark."""
    first, again = (shop.ask(target, key=name, name=name) for _ in range(2))
    assert (first.status, again.status, first.replayed, again.replayed) == (201, 201, False, True)
    assert (first.body, shop.ledger("effect", name)) == (again.body, 1)


@pytest.mark.parametrize(
    "target", ["POST /marked", "PUT /item", "POST /orders", "POST /function", "POST /actions/ship"]
)
def test_a_mark_says_that_a_key_is_required(shop, name, target):
    """It is known before the view runs."""
    assert (shop.ask(target, name=name, count=1).code, shop.ledger("effect", name)) == ("key-missing", 0)


def test_until_when_it_is_replayed(shop, name):
    """Said where the policy asks for it, once, the same on the first answer and on its replay."""
    answers = [shop.ask("POST /until", key=name, name=name) for _ in range(2)]
    first, again = [answer.values("idempotency-expires") for answer in answers]
    assert (first, len(first), answers[1].replayed) == (again, 1, True)
    assert shop.ask(key=f"{name}-other", name=f"{name}-other").values("idempotency-expires") == []


def test_the_status_of_a_key(shop, name):
    """By GET, and by nothing else; of another account nothing is known, and without one nothing is said."""
    shop.ask("POST /marked", key=name, name=name)
    known = shop.ask(f"GET {STATUS}", key=name, content=b"")
    assert (known.status, json.loads(known.body)["state"]) == (200, "completed")
    assert shop.ask(f"GET {STATUS}", key=name, account="bob", content=b"").code == "key-unknown"
    assert shop.ask(f"GET {STATUS}", key=name, account=None, content=b"").code == "scope-missing"
    assert shop.ask(f"POST {STATUS}", key=name, content=b"").status == 405
    assert shop.ask(f"GET {STATUS}/", key=name, content=b"").status == 404


def test_the_contract(shop, name):
    """What is enrolled, by the table and by marks; problems say where it is."""
    said = shop.ask(f"GET {CONTRACT}", account=None, content=b"")
    document = json.loads(said.body)
    routes = {f"{it['method']} {it['path']}": it for it in document["routes"]}
    assert (document["status"], document["default"]["scope"]) == (STATUS, "function")
    assert (routes["POST /open"]["supported"], routes["POST /until"]["required"]) == (False, False)
    assert (routes["PUT /item"]["lifetime"], routes["POST /named/{name}"]["required"]) == ("PT168H", True)
    assert "PUT /marked" not in routes
    assert {"POST /orders", "POST /charges", "POST /function", "POST /actions/ship"} <= set(routes)
    assert shop.ask(f"POST {CONTRACT}", account=None).status == 405
    links = shop.ask("POST /marked", name=name).values("link")
    assert any(f'<{CONTRACT}>; rel="service-meta"' in link for link in links)


@pytest.mark.parametrize(("target", "status", "wish"), [
    ("POST /nothing", 404, {}),
    ("GET /marked", 405, {}),
    ("POST /item", 405, {}),
    ("DELETE /marked", 405, {}),
    ("POST /orders", 400, {"count": 0}),
    ("POST /orders", 403, {"fields": [("X-Token", "none")]}),
    ("POST /charges", 403, {"fields": [("X-Token", "none")]}),
    ("PUT /orders", 405, {}),
])  # fmt: skip
def test_what_is_refused_before_the_view_leaves_no_record(shop, name, target, status, wish):
    """By the router, by Django, by the REST framework's permissions and validation: the key may be used again."""
    before = records(shop)
    assert shop.ask(target, key=name, **{"name": name, "count": 1, **wish}).status == status
    assert (records(shop), shop.ledger("effect", name)) == (before, 0)
    assert shop.ask("POST /orders", key=name, name=name, count=1).status == 201


@pytest.mark.parametrize("target", ["POST /marked", "POST /charges", "POST /atold"])
def test_a_view_that_raises(shop, name, target):
    """Django makes a 500 of it, and the record a problem: what it had done is not done again."""
    wish = {"key": name, "name": name, "raise": "before"}
    answers = [shop.ask(target, **wish) for _ in range(2)]
    assert [(answer.status, answer.code, answer.replayed) for answer in answers] == [
        (500, "handler-failed", False), (500, "handler-failed", True),
    ]  # fmt: skip
    assert shop.ledger("effect", name) == 1


def test_an_upload(shop, name):
    """Django parses the form from the content that was read before."""
    form = (
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        + b"x" * 3_000_000
        + b"\r\n--B--\r\n"
    )
    wish = {"key": name, "content": form, "fields": [("Content-Type", "multipart/form-data; boundary=B")]}
    head, _, _ = request_bytes(f"POST /upload?name={name}", **wish).partition(b"\r\n\r\n")
    head = head.replace(b"Content-Type: application/json\r\n", b"")
    answers = []
    for _ in range(2):
        with connect(shop.port) as client:
            client.send(head + b"\r\n\r\n" + form)
            answers.append(client.answer())
    assert [(answer.body, answer.replayed) for answer in answers] == [(b"3000000", False), (b"3000000", True)]


@pytest.mark.parametrize("server", SERVERS)
def test_the_server_stops_while_a_view_runs(tmp_path, name, server):
    """Its client has left already: it is waited for, and its outcome is recorded."""
    manage(tmp_path, "migrate", "--verbosity", "0")
    with served(server, tmp_path) as shop:
        shop.shut(f"{name}-effect")
        with connect(shop.port) as client:
            client.send(request_bytes(key=name, name=name))
            shop.until("effect", name)
            client.reset()
        shop.process.process.send_signal(signal.SIGTERM)
        shop.open(f"{name}-effect")
        shop.process.process.wait(20)
    with served(server, tmp_path) as shop:
        assert (shop.ask(key=name, name=name).replayed, shop.ledger("effect", name)) == (True, 1)


@pytest.mark.parametrize("server", SERVERS)
def test_without_tables(tmp_path, name, server):
    """Nothing runs under a key; what has none passes."""
    connection = sqlite3.connect(tmp_path / "django.db")
    connection.execute("CREATE TABLE others (name TEXT)")
    connection.close()
    with served(server, tmp_path, *(("--lifespan", "off") if server == "uvicorn" else ())) as shop:
        assert (shop.ask(key=name, name=name).code, shop.ledger("effect", name)) == ("store-unavailable", 0)
        assert (shop.ask(name=name).status, shop.ledger("effect", name)) == (201, 1)
        shop.until_logged("manage.py migrate")
