"""Clients leave real servers at every byte of a request, at every byte of an answer, and wherever a handler stands.

Afterwards each key is asked for again: one effect and one answer. And nothing is left over in the server: no task, no
connection, no transaction, and nothing in its log. Of the bytes, every second one is tried directly and the others by
way of a `BaseHTTPMiddleware`; `RETRYSAFE_PROVE=1` tries all of them in both ways, and every server with every store.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.doors.servers import SERVERS, Shop, Wire, connect, request_bytes, serving, until
from tests.stores.postgres_server import schema_of, server

PROVE = bool(os.environ.get("RETRYSAFE_PROVE"))
QUICK = [("uvicorn", "sqlite"), ("uvicorn with h11", "postgres"), ("hypercorn", "sqlite"), ("granian", "sqlite")]
ALL = [(name, store) for name in SERVERS for store in ("sqlite", "postgres")]
TARGETS = ["POST /told", "POST /outer/told"]  # the second by way of a `BaseHTTPMiddleware`

# What `BaseHTTPMiddleware` says of any application that does not answer a client which left during its upload.
UPLOAD_BROKEN_OFF = {"anyio.EndOfStream", "RuntimeError: No response returned."}
_ERROR = re.compile(r"^[a-z.]*[A-Z]\w*(?:Error|Exception|Interrupt|Group|Stream|Disconnect)\b.*", re.MULTILINE)

# What hypercorn has for each connection, and keeps for some seconds when the client has left between requests.
CONNECTION_TASKS = (
    "EventWrapper.wait",
    "TCPServer._idle_timeout",
    "raise_shutdown",
    "worker_serve.<locals>._server_callback",
)


@pytest.fixture(scope="module", params=ALL if PROVE else QUICK, ids="-".join)
def shop(request, tmp_path_factory):
    """The application under a server, which is as it was before when all clients have left."""
    name, store = request.param
    place = tmp_path_factory.mktemp("shop")
    environment, left_over = _postgres(place) if store == "postgres" else _sqlite(place)
    with serving(name, place, **environment) as shop:
        shop.ask(key=uuid.uuid4().hex, name="first")  # whatever is made for the first request is there
        with connect(shop.port) as watching:
            before = _inside(watching)
        yield shop
        with connect(shop.port) as watching:
            until(lambda: _inside(watching)["tasks"] == before["tasks"])
            until(lambda: _inside(watching)["sockets"] <= before["sockets"])
        until(lambda: not left_over())
        logged = shop.process.log.read_text()
    for complaint in ("never retrieved", "was destroyed", "never awaited"):
        assert complaint not in logged
    assert set(_ERROR.findall(logged)) <= UPLOAD_BROKEN_OFF


def _sqlite(place: Path) -> tuple[dict[str, str], Any]:
    def left_over() -> bool:
        """Somebody writes, or holds on to an old state."""
        with closing(sqlite3.connect(place / "records.db", timeout=0)) as connection:
            ((busy, _, _),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return bool(busy)

    return {}, left_over


def _postgres(place: Path) -> tuple[dict[str, str], Any]:
    name = schema_of(place)
    with server().connect("postgres") as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    url = server().url(name)

    def left_over() -> bool:
        """A connection is within a transaction."""
        with psycopg.connect(url, autocommit=True) as connection:
            return bool(
                connection.execute(
                    "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle'"
                    " AND pid <> pg_backend_pid()"
                ).fetchall()
            )

    return {"SHOP_STORE": url}, left_over


def _inside(watching: Wire) -> dict[str, Any]:
    watching.send(request_bytes("GET /inside", content=b""))
    content: dict[str, Any] = json.loads(watching.answer().body)
    return {**content, "tasks": [task for task in content["tasks"] if task not in CONNECTION_TASKS]}


@contextmanager
def _leaving(shop: Shop, number: int) -> Iterator[Any]:
    """A connection that is reset, or closed, in turn."""
    with connect(shop.port) as client:
        yield client
        if number % 2:
            client.reset()


def _audited(shop: Shop, target: str, names: list[str], **wish: Any) -> list[bool]:
    """Ask for each again: one answer for all, one effect each. Which of them had run before?"""
    answers = [shop.settled(target, key=f"{name:0>22}", name=name, **wish) for name in names]
    wanted = "".join(wish["pieces"]) if wish else None
    for name, answer in zip(names, answers, strict=True):
        assert (answer.status, answer.body) == (201, (wanted or f"order {name}").encode())
    lines = Counter((shop.place / "ledger").read_text().splitlines())
    assert [lines[f"effect {name}"] for name in names] == [1] * len(names)
    assert not any(lines[f"cancelled {name}"] for name in names)
    return [answer.replayed for answer in answers]


def _request(target: str, name: str, **wish: Any) -> bytes:
    return request_bytes(target, key=f"{name:0>22}", name=name, **wish)


def _names(count: int) -> list[str]:
    mark = uuid.uuid4().hex[:8]
    return [f"{mark}{number:04}" for number in range(count)]


def _places(size: int, target: str) -> range:
    """The bytes to leave at, from none of them to all."""
    return range(size + 1) if PROVE else range(TARGETS.index(target), size + 1, 2)


@pytest.mark.parametrize("target", TARGETS)
def test_a_client_leaves_at_each_byte_of_its_request(shop, target):
    """A request that did not come whole has run nothing, and its key is free."""
    whole = len(_request(target, "x" * 12))
    places = _places(whole, target)
    names = _names(len(places))
    for number, (name, place) in enumerate(zip(names, places, strict=True)):
        with _leaving(shop, number) as client:
            client.send(_request(target, name)[:place])
    replayed = _audited(shop, target, names)
    assert not any(replayed[:-1])


@pytest.mark.parametrize("target", TARGETS)
def test_a_client_leaves_at_each_byte_of_its_answer(shop, target):
    """However much of it arrived, the whole answer is there for the retry."""
    (first,) = _names(1)
    with connect(shop.port) as client:
        client.send(_request(target, first))
        answer = client.received(f"order {first}".encode())
    places = _places(len(answer), target)
    names = _names(len(places))
    for number, (name, place) in enumerate(zip(names, places, strict=True)):
        with _leaving(shop, number) as client:
            client.send(_request(target, name))
            client.exactly(place)
    replayed = _audited(shop, target, names)
    assert all(replayed[1:])  # one byte came, so it had run


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("goodbye", [0, 1], ids=["close", "reset"])
def test_a_client_leaves_wherever_its_handler_stands(shop, target, goodbye):
    """After the effect, before each message of the answer, before the record, and after all of it."""
    pieces = ["order ", "is ", "taken"]
    places = ["{}-effect", "{}-0", "{}-1", "{}-2", "before-record", "{}-after"]
    names = _names(len(places))
    for name, place in zip(names, places, strict=True):
        gate = place.format(name)
        shop.shut(gate)
        with _leaving(shop, goodbye) as client:
            client.send(_request(target, name, pieces=pieces))
            shop.until("effect", name)
            if place in ("{}-1", "{}-2"):
                client.received(pieces[int(place[-1]) - 1].encode())
            if place == "{}-after":
                shop.until("sent", name)
        shop.open(gate)
    assert all(_audited(shop, target, names, pieces=pieces))
