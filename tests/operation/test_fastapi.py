"""FastAPI and SQLAlchemy over real sockets: coroutines, functions in threads, and sessions that commit too late."""

from __future__ import annotations

import json
import uuid
from contextlib import contextmanager

import pytest

from retrysafe.demo.processes import await_ready, free_port
from tests.doors.servers import Shop, command, until
from tests.forked import child
from tests.operation.kinds import PLACES


@contextmanager
def serving(place, folder):
    """The application under uvicorn."""
    port = free_port()
    environment = {"SHOP_ENGINE": place.engine, "SHOP_WORDS": json.dumps(place.words)}
    line = command("uvicorn", port, "tests.operation.fastapi_shop:app")
    with child("uvicorn", line, port, folder, environment) as process:
        await_ready(process, "/ready")
        yield Shop(process, folder)


@pytest.fixture(params=PLACES)
def place(request, tmp_path):
    """A database with a table of orders."""
    made = PLACES[request.param](tmp_path)
    yield made
    made.store.close()


def test_a_service(place, tmp_path):
    """One order for each key, whatever happens, and the log says which routes are unmindful, once."""
    with serving(place, tmp_path) as shop:
        for path in ("/async", "/threaded"):
            name = uuid.uuid4().hex
            for replayed in (False, True):
                answer = shop.ask(f"POST {path}", key=name, name=name)
                assert (answer.status, json.loads(answer.body), answer.replayed) == (201, {"sold": name}, replayed)
                assert place.orders(name) == 1
                assert answer.values("set-cookie") == (["seen=yes"] if path == "/async" and not replayed else [])
            assert answer.values("location") == (["/orders/1"] if path == "/async" else [])
        _fails(shop, place)
        _is_late(shop, place)
        _is_unmindful(shop)


def _fails(shop, place):
    """Whoever raises before the commit has done nothing, and may be asked again."""
    name = uuid.uuid4().hex
    for _ in range(2):
        answer = shop.ask("POST /raising", key=name, name=name)
        assert (answer.code, json.loads(answer.body)["retryable"], place.orders(name)) == ("handler-failed", True, 0)


def _is_late(shop, place):
    """The first answer says that it cannot be known yet; the next is what was recorded. Others are not held up."""
    name = uuid.uuid4().hex
    assert shop.ask("POST /late", key=name, name=name).code == "commit-pending"
    until(lambda: place.orders(name) == 1)
    answer = shop.settled("POST /late", key=name, name=name)
    assert (answer.status, answer.replayed, json.loads(answer.body)) == (201, True, {"sold": name})
    shop.until_logged("* answered before its transaction had ended")


def _is_unmindful(shop):
    """A success is recorded as usual; a failure is released."""
    for _ in range(2):
        name = uuid.uuid4().hex
        assert [shop.ask("POST /unmindful?fail", key=f"{name}-f", name=name).replayed for _ in range(2)] == [False] * 2
        assert [shop.ask("POST /unmindful", key=name, name=name).replayed for _ in range(2)] == [False, True]
    shop.until_logged("without operation().complete_within")
    assert shop.process.log.read_text().count("without operation().complete_within") == 1
