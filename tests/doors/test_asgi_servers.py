"""What there is of ASGI alone: middleware around the door, raw paths, background tasks of a framework, websockets."""

from __future__ import annotations

import uuid

import pytest

from tests.doors.servers import SERVERS, connect, request_bytes, serving


@pytest.fixture(scope="module", params=SERVERS)
def shop(request, tmp_path_factory):
    """The application under one of the servers."""
    with serving(request.param, tmp_path_factory.mktemp("shop")) as shop:
        yield shop


@pytest.fixture
def name():
    """A name for what this test does, in the ledger and at the gates; also its key."""
    return uuid.uuid4().hex


@pytest.mark.parametrize("goodbye", ["reset", "close"])
@pytest.mark.parametrize("target", ["POST /outer/told", "POST /outer/streamed?name={}"])
def test_a_client_that_leaves_behind_cancelling_middleware(shop, name, target, goodbye):
    """The handler is not cancelled and not disturbed; a retry replays its whole answer."""
    target = target.format(name)
    held = f"{name}-effect" if target.endswith("told") else f"{name}-0"
    shop.shut(held)
    with connect(shop.port) as first:
        first.send(request_bytes(target, key=name, name=name))
        shop.until("effect", name)
        first.reset() if goodbye == "reset" else first.socket.close()
    assert shop.ask(target, key=name, name=name).code == "in-progress"
    shop.open(held)
    retry = shop.settled(target, key=name, name=name)
    wanted = f"order {name}".encode() if target.endswith("told") else b"0,1,2,3,4,"
    assert (retry.status, retry.body, retry.replayed) == (201, wanted, True)
    assert (shop.ledger("effect", name), shop.ledger("cancelled", name)) == (1, 0)


def test_a_client_that_leaves_in_the_middle_of_a_stream_behind_middleware(shop, name):
    """The rest is made and recorded all the same."""
    target = f"POST /outer/streamed?name={name}"
    shop.shut(f"{name}-1")
    with connect(shop.port) as first:
        first.send(request_bytes(target, key=name, name=name))
        first.received(b"0,")
        first.reset()
    shop.open(f"{name}-1")
    retry = shop.settled(target, key=name, name=name)
    assert (retry.status, retry.body, retry.replayed) == (201, b"0,1,2,3,4,", True)
    assert (shop.ledger("effect", name), shop.ledger("cancelled", name)) == (1, 0)


def test_paths_are_compared_as_they_were_sent(shop, name):
    """An escaped slash is no slash: two resources, whatever a router makes of them."""
    shop.ask("POST /a%2Fb/told", key=name, name=name)
    assert shop.ask("POST /a/b/told", key=name, name=name).code == "key-reused"
    assert shop.ask("POST /a%2fb/told", key=name, name=name).replayed


def test_a_background_task_of_the_framework(shop, name):
    """The same with Starlette's `BackgroundTask`, which outlives the client's connection."""
    target = f"POST /background?name={name}"
    shop.shut(f"{name}-after")
    with connect(shop.port) as first:
        first.send(request_bytes(target, key=name))
        first.received(b"taken")
    assert shop.ask(target, key=name).replayed
    assert shop.ledger("end", name) == 0
    shop.open(f"{name}-after")
    shop.until("end", name)


def test_a_websocket_passes(shop, name):
    """It is opened, echoes, and closes, with a key in its headers."""
    upgrade = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"),
               ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]  # fmt: skip
    head = request_bytes("GET /echo", key=name, fields=upgrade, content=b"")
    with connect(shop.port) as client:
        client.send(head.replace(b"Content-Length: 0\r\n", b""))
        assert b" 101 " in client.received(b"\r\n\r\n")
        client.send(b"\x81\x85\0\0\0\0hello")  # one masked text frame
        client.received(b"\x81\x05hello")
