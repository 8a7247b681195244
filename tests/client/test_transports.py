"""Every transport, over real sockets, against a real server on a bad network: always one effect, always one key."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import uuid

import aiohttp
import pytest

from retrysafe.aiohttp import IdempotencyMiddleware
from retrysafe.client.attempt import Certainty, Schedule
from retrysafe.client.intent import intent
from retrysafe.faults import CutRequest, CutResponse, DeliverTwice, Leave, LoseResponse, Nothing, Reset, Slow
from tests.client.clients import CLIENTS, Post, got
from tests.client.network import PATIENCE_S
from tests.doors.servers import until

CONTENT = b"A" * 3_000
FAULTS = {
    "nothing": [Nothing()],
    "slow": [Slow(256, 1)],
    "request cut in its head": [CutRequest(40)],
    "request cut in its content": [CutRequest(1_500)],
    "response lost": [LoseResponse()],
    "response cut in its head": [CutResponse(20)],
    "response cut in its content": [CutResponse(1_000)],
    "client gone": [Leave(0)],
    "reset": [Reset()],
    "delivered twice": [DeliverTwice()],
    "one after the other": [CutRequest(1_500), Reset(), LoseResponse(), CutResponse(1_000)],
}


@pytest.fixture(params=CLIENTS)
def send(request):
    """Each client in turn."""
    return CLIENTS[request.param]


def one_effect(shop, content: bytes | None = CONTENT):
    """The key of the only effect, of the same content, under the only key that was ever seen."""
    ((key, digest),) = shop.effects()
    assert content is None or digest == hashlib.sha256(content).hexdigest()
    assert set(shop.keys()) == {key}
    return key


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_faults(send, shop, network, faults):
    """Whatever happens to its connections, a call has one effect and its answer."""
    with network.faulty(shop.port, faults) as proxy:
        answer = got(send, Post(f"http://127.0.0.1:{proxy.port}/orders", CONTENT))
    assert answer.failure is None
    assert answer.status == 201
    assert answer.content.startswith(b'{"order":3000')
    assert answer.ended.certainty is Certainty.SETTLED
    assert uuid.UUID(one_effect(shop).strip('"'))


def test_a_time_out_and_a_request_in_progress(send, shop, network):
    """The first attempt times out and runs on; the next is told to wait; the last gets the answer of the first."""
    gate = shop.place / "closed"
    gate.touch()

    def open_later():
        until(lambda: len(shop.keys()) >= 2)
        gate.unlink()

    opener = threading.Thread(target=open_later)
    opener.start()
    with network.faulty(shop.port, []) as proxy:
        answer = got(send, Post(f"http://127.0.0.1:{proxy.port}/orders", CONTENT, timeout_s=0.5))
    opener.join(PATIENCE_S)
    assert (answer.status, answer.ended.certainty) == (201, Certainty.SETTLED)
    assert answer.ended.reply.replayed
    one_effect(shop)


def test_a_busy_server(send, shop):
    """503 is tried again."""
    (shop.place / "busy").touch()
    assert got(send, Post(f"http://127.0.0.1:{shop.port}/orders", CONTENT)).status == 201
    one_effect(shop)
    assert len(shop.keys()) == 2


def test_a_definitive_no(send, shop):
    """422 is the answer, at once."""
    answer = got(send, Post(f"http://127.0.0.1:{shop.port}/refused", CONTENT))
    assert (answer.status, answer.ended.certainty, answer.ended.attempts) == (422, Certainty.SETTLED, 1)


def test_moved_within_the_origin(send, shop, network):
    """A redirect of the same origin is the same operation, under the same key, on a bad network too."""
    with network.faulty(shop.port, [LoseResponse(), Nothing(), LoseResponse()]) as proxy:
        answer = got(send, Post(f"http://127.0.0.1:{proxy.port}/moved", CONTENT))
    assert answer.status == 201
    one_effect(shop)


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": '"mine-4711"'}], ids=["our key", "their key"])
def test_moved_to_another_origin(send, shop, network, headers):
    """No key goes to another origin, which has given no word about keys; nor credentials (R97)."""
    headers = {**headers, "Authorization": "Bearer s3cret"}
    with network.faulty(shop.port, []) as elsewhere:
        url = f"http://127.0.0.1:{shop.port}/moved?to=http://127.0.0.1:{elsewhere.port}/orders"
        answer = got(send, Post(url, CONTENT, headers=headers))
    assert answer.status == 400  # which requires one
    first, *others = shop.keys()
    assert first != "None"
    assert others == ["None"]
    assert not shop.effects()
    assert len(shop.lines("credential")) == 1


def test_what_went_to_another_origin_is_not_sent_twice(send, shop, network):
    """There is no key there that would make it safe."""
    with network.faulty(shop.port, [LoseResponse()]) as elsewhere:
        url = f"http://127.0.0.1:{shop.port}/moved?to=http://127.0.0.1:{elsewhere.port}/orders"
        answer = got(send, Post(url, CONTENT))
    assert answer.failure is not None
    assert len(shop.keys()) == 2


def test_nobody_there(send, network, shop):
    """Where no connection comes about, nothing was done, and it is said so."""
    with network.faulty(shop.port, []) as proxy:
        port = proxy.port
    answer = got(send, Post(f"http://127.0.0.1:{port}/orders", settings={"schedule": Schedule(3, 0.01)}))
    assert answer.ended.certainty is Certainty.NOT_DONE
    assert answer.ended.attempts == 3
    assert "not done" in answer.failure.__notes__[0]


def test_doubt_remains(send, network, shop):
    """After an attempt without an answer, attempts that cannot have done anything settle nothing."""
    with network.faulty(shop.port, [LoseResponse()] * 9) as proxy:
        url = f"http://127.0.0.1:{proxy.port}/orders"
        answer = got(send, Post(url, CONTENT, settings={"schedule": Schedule(3, 0.01)}))
    assert answer.failure is not None
    assert (answer.ended.certainty, answer.ended.attempts) == (Certainty.UNKNOWN, 3)
    one_effect(shop)


def test_a_stream_is_read_once(send, shop, network):
    """A generator yields its content once, and every attempt sends all of it."""
    with network.faulty(shop.port, [CutRequest(1_500), LoseResponse()]) as proxy:
        url = f"http://127.0.0.1:{proxy.port}/orders"
        assert got(send, Post(url, iter([b"A" * 1_000] * 3))).status == 201
    one_effect(shop)


def test_a_stream_is_moved(send, shop):
    """What was read once is there for the place that it was moved to."""
    url = f"http://127.0.0.1:{shop.port}/moved"
    assert got(send, Post(url, iter([b"A" * 1_000] * 3))).status == 201
    one_effect(shop)


def test_the_time_of_all_attempts(shop):
    """With aiohttp a time may be set for all attempts together: when it is over, nothing is tried again."""
    gate = shop.place / "closed"
    gate.touch()

    async def hurry():
        timeout = aiohttp.ClientTimeout(total=0.5)
        async with aiohttp.ClientSession(middlewares=[IdempotencyMiddleware("retrysafe")], timeout=timeout) as session:
            await session.post(f"http://127.0.0.1:{shop.port}/orders", data=CONTENT, headers={"X-Account-Id": "7"})

    with pytest.raises(TimeoutError):
        asyncio.run(hurry())
    gate.unlink()
    assert len(shop.keys()) == 1


def test_a_form_keeps_its_boundary(send, shop, network):
    """A multipart form is encoded once."""
    with network.faulty(shop.port, [LoseResponse(), Reset()]) as proxy:
        url = f"http://127.0.0.1:{proxy.port}/orders"
        assert got(send, Post(url, files={"document": ("a.bin", CONTENT)})).status == 201
    one_effect(shop, content=None)


def test_the_callers_key_is_kept(send, shop, network):
    """In the caller's spelling, in every attempt."""
    key = f"mine-{uuid.uuid4()}"
    with network.faulty(shop.port, [LoseResponse()]) as proxy:
        url = f"http://127.0.0.1:{proxy.port}/orders"
        assert got(send, Post(url, CONTENT, headers={"idempotency-key": key})).status == 201
    assert one_effect(shop) == key


def test_an_intent_is_one_operation(send, shop):
    """Two calls of one intent are one operation; a third of another is another."""
    post = Post(f"http://127.0.0.1:{shop.port}/orders", CONTENT)
    name = f"order-{uuid.uuid4()}"
    for _ in range(2):
        with intent(name):
            assert got(send, post).status == 201
    assert name not in one_effect(shop)
    with intent(f"{name}-b"):
        assert got(send, post).status == 201
    assert len(shop.effects()) == 2


def test_without_an_intent_each_call_is_an_operation(send, shop):
    """Nothing is guessed: the same content twice is two orders."""
    for _ in range(2):
        assert got(send, Post(f"http://127.0.0.1:{shop.port}/orders", CONTENT)).status == 201
    assert len({key for key, _ in shop.effects()}) == 2


def test_an_origin_that_is_not_named_gets_no_key(send, shop):
    """With `origins`, keys go nowhere else."""
    settings = {"origins": ["https://api.example.com"]}
    assert got(send, Post(f"http://127.0.0.1:{shop.port}/orders", settings=settings)).status == 400
    assert shop.keys() == ["None"]
