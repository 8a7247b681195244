"""What gunicorn does with processes: forks of a loaded application, workers that are replaced, workers that hang."""

from __future__ import annotations

import signal
import sqlite3
import uuid
from contextlib import contextmanager

import pytest

from retrysafe.demo.processes import await_ready, child, free_port
from tests.doors.servers import Shop, command, connect, request_bytes, until


@pytest.fixture
def name():
    """A name for what a test does; also its key."""
    return uuid.uuid4().hex


@contextmanager
def gunicorn(place, *options, lease="10s"):
    """The shop under it, with more options."""
    port = free_port()
    module = (*command("gunicorn with threads", port), *options)
    with child("gunicorn", module, port, place, {"SHOP_PLACE": str(place), "SHOP_LEASE": lease}) as process:
        await_ready(process, "/ready")
        yield Shop(process, place)


@pytest.mark.parametrize("options", [(), ("--preload",)])
def test_a_handler_that_takes_many_leases(tmp_path, name, options):
    """Its claim is renewed by a thread of the worker's, also when the application was loaded before the fork."""
    lease_ends = []

    def renewed_often():
        answer = shop.ask(key=name, name=name)
        assert answer.code == "in-progress"
        lease_ends.append(_lease_until_ms(tmp_path))
        return len(set(lease_ends)) > 4

    with gunicorn(tmp_path, *options, lease="300ms") as shop:
        shop.shut(f"{name}-effect")
        with connect(shop.port) as first:
            first.send(request_bytes(key=name, name=name))
            shop.until("effect", name)
            until(renewed_often)
            shop.open(f"{name}-effect")
            assert first.answer().status == 201
        assert (shop.ask(key=name, name=name).replayed, shop.ledger("effect", name)) == (True, 1)


def _lease_until_ms(place):
    with sqlite3.connect(place / "records.db") as connection:
        ((lease_until_ms,),) = connection.execute("SELECT lease_until_ms FROM records").fetchall()
    connection.close()
    return lease_until_ms


def test_workers_that_are_replaced_all_the_time(tmp_path):
    """Each serves three requests: every key has one effect, and every retry its answer."""
    names = [uuid.uuid4().hex for _ in range(20)]
    with gunicorn(tmp_path, "--max-requests", "3") as shop:
        for name in names:
            assert shop.settled(key=name, name=name).status == 201
            assert shop.settled(key=name, name=name).replayed
            assert shop.ledger("effect", name) == 1


def test_a_worker_that_is_told_to_stop_ends_its_handlers(tmp_path, name):
    """SIGTERM while a handler runs: its outcome is recorded."""
    with gunicorn(tmp_path) as shop, connect(shop.port) as client:
        shop.shut(f"{name}-effect")
        client.send(request_bytes(key=name, name=name))
        shop.until("effect", name)
        shop.process.process.send_signal(signal.SIGTERM)
        shop.open(f"{name}-effect")
        assert client.answer().body == f"order {name}".encode()
        shop.process.process.wait(20)
    with gunicorn(tmp_path) as shop:
        assert (shop.ask(key=name, name=name).replayed, shop.ledger("effect", name)) == (True, 1)


def test_a_worker_that_hangs_is_killed(tmp_path, name):
    """By gunicorn's timeout, in the middle of the handler: the outcome is unknown, and nobody runs it again."""
    with gunicorn(tmp_path, "--worker-class", "sync", "--threads", "1", "--timeout", "1", lease="500ms") as shop:
        shop.shut(f"{name}-effect")
        with connect(shop.port) as client:
            client.send(request_bytes(key=name, name=name))
            shop.until("effect", name)
            client.answer()
        retry = shop.settled(key=name, name=name)
        assert (retry.status, retry.code, shop.ledger("effect", name)) == (409, "outcome-unknown", 1)
