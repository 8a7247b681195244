"""A server that is told to stop lets the running handlers end, and marks unknown what it cuts off."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import uuid

import pytest

from retrysafe.demo.processes import child, free_port
from retrysafe.stores.sqlite import SqliteStore
from tests.doors.connections import ask, protected
from tests.doors.handlers import Shop as Handler
from tests.doors.servers import SERVERS, command, connect, request_bytes, serving, until

STOP_S_MAX = 20


def _retry(place, **wish):
    """The same request in this process, on the server's file."""
    store, handler = SqliteStore(place / "records.db"), Handler()
    body = request_bytes(**wish).partition(b"\r\n\r\n")[2]
    try:
        answer = asyncio.run(ask(protected(handler, store), "POST /told", key=wish["name"], body=body))
    finally:
        store.close()
    assert handler.effects == 0
    return answer


@pytest.mark.parametrize("server", SERVERS)
def test_a_running_handler_ends_before_the_server_does(server, tmp_path):
    """SIGTERM while a handler runs: the process waits for it, and its outcome is recorded."""
    name = uuid.uuid4().hex
    with serving(server, tmp_path) as shop, connect(shop.port) as client:
        shop.shut(f"{name}-effect")
        client.send(request_bytes(key=name, name=name))
        shop.until("effect", name)
        shop.process.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            shop.process.process.wait(0.3)
        shop.open(f"{name}-effect")
        shop.process.process.wait(STOP_S_MAX)
        assert (shop.ledger("end", name), shop.ledger("cancelled", name)) == (1, 0)
    retry = _retry(tmp_path, name=name)
    assert (retry.status, retry.body, retry.replayed) == (201, f"order {name}".encode(), True)


@pytest.mark.parametrize("server", [server for server in SERVERS if server != "granian"])
def test_past_the_drain_the_outcome_is_unknown(server, tmp_path):
    """The handler never ends: it is cancelled after the drain, its record says so, and the process ends."""
    name = uuid.uuid4().hex
    with serving(server, tmp_path, SHOP_DRAIN="100ms") as shop, connect(shop.port) as client:
        shop.shut(f"{name}-effect")
        client.send(request_bytes(key=name, name=name))
        shop.until("effect", name)
        shop.process.process.send_signal(signal.SIGTERM)
        if server == "hypercorn" and sys.version_info >= (3, 12):
            client.reset()  # from there on it waits for clients without an end
        shop.process.process.wait(STOP_S_MAX)
        assert shop.ledger("cancelled", name) == 1
    assert _retry(tmp_path, name=name).code == "outcome-unknown"


def test_a_worker_that_its_server_kills(tmp_path):
    """Granian waits for handlers itself, and then kills: the outcome is unknown once the lease is over."""
    name = uuid.uuid4().hex
    with serving("granian", tmp_path, SHOP_LEASE="400ms") as shop, connect(shop.port) as client:
        shop.shut(f"{name}-effect")
        client.send(request_bytes(key=name, name=name))
        shop.until("effect", name)
        shop.process.process.send_signal(signal.SIGTERM)
        shop.process.process.wait(STOP_S_MAX)
        assert (shop.ledger("end", name), shop.ledger("cancelled", name)) == (0, 0)
    until(lambda: _retry(tmp_path, name=name).code == "outcome-unknown")


@pytest.mark.parametrize("server", SERVERS)
def test_a_store_that_cannot_be_used_stops_the_start(server, tmp_path):
    """The process says what is wrong, and ends."""
    (tmp_path / "records.db").write_bytes(b"this is no database" * 100)
    port = free_port()
    with child("server", command(server, port), port, tmp_path, {"SHOP_PLACE": str(tmp_path)}) as process:
        assert process.process.wait(STOP_S_MAX) != 0
        assert "records.db" in process.log.read_text()
