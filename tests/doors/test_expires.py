"""`expires_header`: answers say until when they are replayed, and say it of nothing else."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

import pytest

from retrysafe import Policy, operation
from retrysafe.errors import StoreUnavailable
from retrysafe.protocol.transitions import Read
from retrysafe.stores.memory import MemoryStore
from tests.doors import test_wsgi
from tests.doors.connections import Connection, ask, protected
from tests.doors.handlers import Shop, piece, start
from tests.drive.harness import ManualClock, TamperedStore, in_loop

POLICY = Policy(expires_header=True, lifetime="1h")
FIELD = "idempotency-expires"


def seconds(answer):
    """What an answer says, in seconds of the store's clock."""
    (line,) = answer.values(FIELD)
    return parsedate_to_datetime(line).timestamp()


@in_loop
async def test_an_answer_and_its_replay_say_the_same():
    """To the second, and by the clock of the store; what the application says itself is withheld."""
    clock, shop = ManualClock(), Shop(headers=[(b"Idempotency-Expires", b"never"), (b"content-length", b"1")])
    clock.now_ms = 1_000_999
    door = protected(shop, MemoryStore(clock), policy=POLICY)
    first = await ask(door)
    clock.now_ms += 500_000
    again = await ask(door)
    assert (seconds(first), seconds(again)) == (4_600, 4_600)
    assert (shop.effects, again.replayed) == (1, True)
    plain = protected(Shop(headers=[(b"Idempotency-Expires", b"never")]), MemoryStore(clock))
    assert [(await ask(plain)).values(FIELD) for _ in range(2)] == [[], []]


@in_loop
async def test_a_failure_that_is_recorded_says_it_too():
    """It is replayed as long."""

    async def raises(*_):
        raise ZeroDivisionError

    door = protected(raises, MemoryStore(ManualClock()), policy=POLICY)
    first, again = await Connection().run(door), await ask(door)
    assert (first.code, seconds(first)) == (again.code, seconds(again)) == ("handler-failed", 4_600)


@pytest.mark.parametrize("lacking", [{"response_bytes_max": 2}, {"store_body": "none"}])
@in_loop
async def test_what_is_not_replayed_is_not_promised(lacking):
    """An answer of which a receipt is kept says nothing, unless retries get that."""
    for on_receipt, replays in (("refuse", False), ("receipt", True)):
        policy = Policy(expires_header=True, on_receipt=on_receipt, **lacking)
        door = protected(Shop(), MemoryStore(), policy=policy)
        first, again = await ask(door), await ask(door)
        assert (bool(first.values(FIELD)), again.replayed) == (replays, replays)
        assert first.values(FIELD) == again.values(FIELD)


@pytest.mark.parametrize("answer", ["released", "streamed", "in doubt"])
@in_loop
async def test_what_is_not_sure_is_not_said(answer):
    """Of what is not recorded, of what is recorded after its head was sent, and where the store cannot be asked."""

    async def application(connection, receive, send):
        if answer == "released":
            operation().no_effect()
        await send(start(200))
        if answer == "streamed":
            await send(piece(b"one,", more=True))
        await send(piece(b"two"))

    def away(transition):
        if answer == "in doubt" and isinstance(transition, Read):
            raise StoreUnavailable

    door = protected(application, TamperedStore(MemoryStore(), before=away), policy=POLICY)
    first = await ask(door)
    assert (first.status, first.values(FIELD)) == (200, [])


def test_the_wsgi_door():
    """It says the same."""
    clock = ManualClock()
    shop = test_wsgi.Shop(_hello)
    door = test_wsgi.protected(shop, MemoryStore(clock), policy=POLICY)
    first, again = test_wsgi.ask(door), test_wsgi.ask(door)
    assert (seconds(first), seconds(again), again.replayed, shop.ran) == (4_600, 4_600, True, 1)


def _hello(start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]
