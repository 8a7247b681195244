"""Doors that only observe, under real servers: every byte is that of the application alone, and each request counts."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from retrysafe.demo.processes import await_ready, free_port
from retrysafe.model import State
from retrysafe.protocol.observing import observed_route
from retrysafe.protocol.transitions import ListRecords
from retrysafe.stores.location import open_store
from tests.doors.servers import BLOCKING_SERVERS, Shop, command, connect, request_bytes, until
from tests.doors.test_django import manage
from tests.forked import child
from tests.gateway.processes import Gateway, Ledger
from tests.operate.shops import command as retrysafe
from tests.stores import redis_servers

SERVERS = {
    "uvicorn": "application", "hypercorn": "application", "gunicorn with threads": "blocking", "waitress": "blocking",
}  # fmt: skip


@contextmanager
def served(server, place, application=None, **variables):
    """A server of an application; at the end of the context it has ended, as it ends by itself."""
    application = application or f"tests.doors.observed_apps:{SERVERS[server]}"
    port = free_port()
    place.mkdir(exist_ok=True)
    words = command(server, port, application)
    with child(server.replace(" ", "-"), words, port, place, {"SHOP_PLACE": str(place), **variables}) as process:
        await_ready(process, "/ready")
        yield Shop(process, place)
        # waitress has no way of its own with SIGTERM
        process.process.send_signal(signal.SIGINT if server == "waitress" else signal.SIGTERM)
        process.process.wait(20)


def observed(url):
    """What `retrysafe stats --observed` says: by route, without what is zero."""
    result = retrysafe("stats", "--observed", "--json", "--store", url)
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    names = ("first_attempts", "duplicates_in_flight", "duplicates_replayed", "mismatches", "missing_keys",
             "malformed_keys", "no_scope", "too_large", "not_compared", "lost")  # fmt: skip
    return {route["route"]: {name: route[name] for name in names if route[name]} for route in said["routes"]}


def records(url, route="*"):
    """The states of the observed records of a route, and how many there are of each."""
    store = open_store(url)
    store.open()
    try:
        page = store.perform(ListRecords(tuple(State), observed_route(route), b"", 1_000))
        return Counter(listed.record.state for listed in page.records)
    finally:
        store.close()


def _stand(url, route, wanted):
    return records(url, route) == wanted


# --- byte for byte --------------------------------------------------------------------------------


def conversation():
    """Requests as they go over the wire: what protection would refuse, replay, or never see."""

    def told(target="POST /told", **wish):
        return request_bytes(target, fields=[("Connection", "close")], **wish)

    big = json.dumps({"name": "big", "pad": "x" * 200_000}).encode()
    return [
        told(key="k-1", name="a"), told(key="k-1", name="a"), told(key="k-1", name="b"),
        told(name="c"), told("POST /required/told", name="c"), told(key="not a key", name="d"),
        told(key="k-2", account=None, name="e"), told(key="k-3", chunked=True, name="f"),
        told(key="k-4", name="g", pieces=["one", "two", "three"], times=1_000),
        told(key="k-5", name="h", pieces=["one", "two"], sized=True),
        told(key="k-6", name="i", status=204, pieces=[""]),
        told(key="k-7", name="j", status=429, headers=[["retry-after", "7"], ["x-a", "1"], ["x-a", "2"]]),
        told(key="k-8", name="k", **{"raise": "before"}),
        told("POST /small/told", key="k-9", name="l" * 300),
        told(key="k-10", content=big), told("POST /size?name=m", key="k-11", content=big),
        told("POST /streamed?name=n", key="k-12"), told("POST /file", key="k-13"),
        told("POST /slash?name=o", key="k-14"), told("POST /threaded?name=p", key="k-15", content=b""),
        told("GET /ticks?name=q", key="k-16"),
    ]  # fmt: skip


def answers(port, requests):
    """The bytes that came for each, to the end of its connection; but for what tells the time."""
    came = []
    for request in requests:
        with connect(port) as connection:
            connection.send(request)
            seen = b""
            while piece := connection.socket.recv(65_536):
                seen += piece
        came.append(re.sub(rb"(?i)(\r\ndate: )[^\r]*", rb"\1", seen))
    return came


def wanted(reading: int, unread: int) -> dict[str, dict[str, int]]:
    """What each of these requests is, where so many handlers read their content to its end, and so many do not."""
    return {
        "*": {
            "first_attempts": reading, "duplicates_replayed": 1, "mismatches": 1, "missing_keys": 1,
            "malformed_keys": 1, "no_scope": 1, "not_compared": unread,
        },
        "POST /required/told": {"missing_keys": 1}, "POST /small/told": {"too_large": 1},
    }  # fmt: skip


@pytest.mark.parametrize("server", SERVERS)
def test_a_client_sees_no_difference(server, tmp_path):
    """The same bytes as from the application alone, on every connection; and what each was is known."""
    requests = conversation()
    with served(server, tmp_path / "bare", SHOP_DOOR="none") as shop:
        expected = answers(shop.port, requests)
    with served(server, tmp_path / "observed") as shop:
        assert answers(shop.port, requests) == expected
    seen = observed(f"sqlite:///{tmp_path / 'observed' / 'records.db'}")
    # Starlette reads what is left of a content, to hear of a client that leaves; the blocking handlers do not.
    assert seen == (wanted(10, 3) if server in BLOCKING_SERVERS else wanted(12, 1))


# --- counts ---------------------------------------------------------------------------------------


def test_a_storm_over_four_processes(tmp_path):
    """Every request is one of the counts, and the first of a key is one, whichever process it came to."""
    with served("gunicorn", tmp_path, "tests.doors.observed_apps:blocking") as shop, ThreadPoolExecutor(16) as pool:
        url = f"sqlite:///{tmp_path / 'records.db'}"
        storm = [{"key": f"k-{number}", "name": f"n-{number}"} for number in range(20)] * 6
        assert {answer.status for answer in pool.map(lambda wish: shop.ask(**wish), storm)} == {201}
        assert sum(shop.ledger("effect", f"n-{number}") for number in range(20)) == 120
        until(lambda: records(url) == {State.COMPLETED: 20})
        rest: list[dict[str, Any]] = [{"key": f"k-{number}", "name": "other"} for number in range(20)]
        rest += [{"name": "none"}] * 15 + [{"key": "a b", "name": "bad"}] * 5 + [{"key": "k", "account": None}] * 3
        list(pool.map(lambda wish: shop.ask(**{"name": "x", **wish}), rest))
    counts = observed(url)["*"]
    assert counts.pop("duplicates_in_flight", 0) + counts.pop("duplicates_replayed", 0) == 100
    assert counts == {
        "first_attempts": 20, "mismatches": 20, "missing_keys": 15, "malformed_keys": 5, "no_scope": 3,
    }  # fmt: skip


def test_in_flight_and_afterwards_are_told_apart(tmp_path):
    """By two processes, of the attempts in each other; and counts of an earlier run are added."""
    url = f"sqlite:///{tmp_path / 'records.db'}"
    with ExitStack() as stack:
        one, two = (stack.enter_context(served("uvicorn", tmp_path, SHOP_STORE=url)) for _ in range(2))
        pool = stack.enter_context(ThreadPoolExecutor(4))
        one.shut("n-effect")
        asked = [pool.submit(one.ask, key="k-1", name="n")]
        until(lambda: records(url) == {State.IN_PROGRESS: 1})
        asked += [pool.submit(shop.ask, key="k-1", name="n") for shop in (one, two, two)]
        until(lambda: observed(url).get("*", {}).get("duplicates_in_flight") == 3)
        one.open("n-effect")
        assert {future.result().status for future in asked} == {201}
        until(lambda: records(url) == {State.COMPLETED: 1})
        assert [shop.ask(key="k-1", name="n").replayed for shop in (one, two)] == [False, False]
    assert observed(url) == {"*": {"first_attempts": 1, "duplicates_in_flight": 3, "duplicates_replayed": 2}}
    with served("uvicorn", tmp_path, SHOP_STORE=url) as again:
        assert again.ask(key="k-1", name="n").status == 201
    assert observed(url)["*"]["duplicates_replayed"] == 3


# --- the store ------------------------------------------------------------------------------------


def test_the_store_hangs_and_dies_and_comes_back(tmp_path):
    """The client sees nothing of it and waits for nothing; what could not be asked is said to be lost."""
    with redis_servers.server(tmp_path, appendonly="yes", appendfsync="always") as store:
        url = f"redis://{store.address}/0"
        with served("uvicorn", tmp_path / "shop", SHOP_STORE=url) as shop:
            expected = shop.ask(key="k-1", name="n")
            until(lambda: records(url) == {State.COMPLETED: 1})
            began_s = time.monotonic()
            store.process.send_signal(signal.SIGSTOP)
            asked = [shop.ask(key="k-1", name="n") for _ in range(10)]
            store.kill()
            asked += [shop.ask(key="k-1", name="n") for _ in range(10)]
            assert time.monotonic() - began_s < 10, "no request waits for a store"
            store.start()
            asked += [shop.ask(key="k-1", name="n")]
            assert {(answer.status, answer.body) for answer in asked} == {(expected.status, expected.body)}
        counts = observed(url)["*"]
        assert sum(counts.values()) == 22
        assert counts["lost"] >= 10


def test_the_gateway(tmp_path):
    """It starts and serves without its store; with one, every byte is that of a gateway that has no route enrolled."""

    def orders(key, content=b'{"item": 1}'):
        fields = [("Connection", "close"), ("X-Account-Id", "alice")]
        return request_bytes("POST /orders", key=key, account=None, fields=fields, content=content)

    requests = [orders("k-1"), orders("k-1"), orders("k-1", b"[]"), orders(None), orders("a b")]
    came = []
    for name, options in (
        ("out", ("--policy", "methods=LOCK")),
        ("away", ("--mode", "observe", "--store", "postgresql://nobody@127.0.0.1:1/nothing")),
        ("observed", ("--mode", "observe", "--status-path", "/status")),
    ):
        place = tmp_path / name
        place.mkdir()
        ledger = Ledger(place)
        gateway = Gateway(ledger.url, place, *options)
        came.append([_without_ports(answer) for answer in answers(gateway.port, requests)])
        gateway.terminate()
        assert gateway.ended() == 0
        assert ledger.orders == 5
        ledger.kill()
        assert ("observes, and protects nothing" in gateway.log) is (name != "out")
    assert came[0] == came[1] == came[2]
    assert observed(f"sqlite:///{tmp_path / 'observed' / 'records.db'}") == {
        "*": {
            "first_attempts": 1, "duplicates_replayed": 1, "mismatches": 1, "missing_keys": 1, "malformed_keys": 1,
        }
    }  # fmt: skip


def _without_ports(answer):
    return re.sub(rb"127\.0\.0\.1:\d+", b"", answer)


def test_an_upstream_that_is_not_there(tmp_path):
    """Nothing was sent, so the next attempt is a first one: as under protection."""
    gateway = Gateway(f"http://127.0.0.1:{free_port()}", tmp_path, "--mode", "observe")
    request = request_bytes("POST /orders", key="k-1", fields=[("Connection", "close"), ("X-Account-Id", "alice")])
    assert all(b" 502 " in answer for answer in answers(gateway.port, [request, request]))
    gateway.terminate()
    assert gateway.ended() == 0
    assert observed(f"sqlite:///{tmp_path / 'records.db'}") == {"*": {"first_attempts": 2}}


# --- Django ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", ["gunicorn", "uvicorn"])
def test_django(server, tmp_path):
    """In both of its modes, with the records in its own database; what comes before a marked view is no attempt."""
    module, variables = "tests.doors.django_apps", {"SHOP_ASYNC": "yes"} if server == "uvicorn" else {}
    manage(tmp_path, "migrate", "--verbosity", "0")
    with served(server, tmp_path, f"{module}:application", SHOP_MODE="observe", **variables) as shop:
        url = f"sqlite:///{tmp_path / 'django.db'}"
        wish = {"name": "n", "operation": True, "headers": [["Idempotent-Replayed", "true"]]}
        told = [shop.ask("POST /told", key="k-1", **wish) for _ in range(2)]
        assert [(answer.status, answer.replayed, answer.body) for answer in told] == [
            (201, True, b"order n")  # the view says the one itself, and has no operation to tell of
        ] * 2
        until(lambda: records(url) == {State.COMPLETED: 1})
        assert shop.ask("POST /told", key="k-1", name="other").status == 201
        assert shop.ask("POST /told", name="n").status == 201
        for count, status, left in ((0, 400, {}), (1, 201, {State.COMPLETED: 1}), (1, 201, {State.COMPLETED: 1})):
            assert shop.ask("POST /orders", key="k-2", name="o", count=count).status == status
            until(partial(_stand, url, "POST /orders", left))
        assert shop.ask("POST /streamed?name=s", key="k-3", content=b"").body == b"0,1,2,3,4,"
        assert shop.ask("POST /told", key="k-4", name="e", **{"raise": "before"}).status == 500
        assert shop.ledger("effect", "n") == 3
    assert observed(url) == {
        "*": {"first_attempts": 3, "duplicates_replayed": 1, "mismatches": 1, "missing_keys": 1},
        "POST /orders": {"first_attempts": 2, "duplicates_replayed": 1},
    }


def test_django_says_no_more_of_a_user_than_the_view():
    """To look at the user of a session makes a header: observing is not seen by it, and the view's own look is."""
    said: dict[str, Any] = {}
    for mode in ("", "observe"):
        with TemporaryDirectory() as folder:
            program = [sys.executable, "-m", "tests.doors.django_sessions"]
            variables = {**os.environ, "SHOP_PLACE": folder, "SHOP_MODE": mode}
            done = subprocess.run(program, env=variables, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            said[mode] = json.loads(done.stdout)
            seen = observed(f"sqlite:///{folder}/django.db") if mode else {}
    assert said["observe"] == said[""]
    assert ["Vary" in headers for _, headers, _ in said[""]] == [False, False, True, True]
    assert seen == {"*": {"first_attempts": 2, "duplicates_replayed": 1, "not_compared": 1}}
