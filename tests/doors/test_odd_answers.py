"""Answers that no server would refuse and no application should give, and what they must not lead to."""

from __future__ import annotations

import asyncio
import gzip

import pytest

import retrysafe.protocol.flow
from retrysafe.asgi import IdempotencyMiddleware
from retrysafe.model import State
from retrysafe.observe import CutOff
from retrysafe.operation import Operation, current_operation
from retrysafe.protocol.transitions import CompleteIfHeld
from retrysafe.server.capture import Message
from retrysafe.stores.memory import MemoryStore
from tests.doors.connections import Connection, ask, protected
from tests.doors.handlers import Shop, piece, start
from tests.drive.harness import Noted, TamperedStore, in_loop, states


def sending(*messages: Message, effects: list[int] | None = None):
    """An application that sends these messages."""

    async def application(_connection, _receive, send):
        if effects is not None:
            effects.append(1)
        for message in messages:
            await send(dict(message))

    return application


@pytest.mark.parametrize("status", [204, 205, 304])
@in_loop
async def test_a_head_that_is_the_whole_answer_waits_for_its_record(status):
    """Though the application promises more: a client that has such a head has everything."""
    sent: list[str] = []
    store = TamperedStore(MemoryStore(), before=lambda step: sent.append(type(step).__name__))
    connection = Connection()
    connection.on_send = lambda message: sent.append(message["type"])
    await connection.run(protected(sending(start(status), piece(more=True), piece()), store))
    assert sent.index("CompleteIfHeld") < sent.index("http.response.start")


@in_loop
async def test_a_length_with_spaces_around_it_is_a_length():
    """The piece that reaches it waits, as with any other."""
    sent: list[str] = []
    store = TamperedStore(MemoryStore(), before=lambda step: sent.append(type(step).__name__))
    connection = Connection()
    connection.on_send = lambda message: sent.append(message["type"])
    length = [(b"content-length", b" 2")]
    await connection.run(protected(sending(start(headers=length), piece(b"ok", more=True), piece()), store))
    assert sent.index("CompleteIfHeld") < sent.index("http.response.body")


@in_loop
async def test_a_location_that_is_no_url_is_recorded():
    """It is no router's; and it must not cost the answer."""
    shop = Shop(307, [(b"location", b"http://[::1/x")])
    door = protected(shop)
    first, retry = await ask(door), await ask(door)
    assert (first.status, retry.status, retry.replayed, shop.effects) == (307, 307, True, 1)


@pytest.mark.parametrize("message", [
    {**start(), "status": "201"}, start(99), start(70_000), {**start(), "headers": [("location", "/1")]},
    {"type": "http.response.start"}, piece(b"before any start"),
])  # fmt: skip
@in_loop
async def test_an_answer_that_is_none_is_a_failure_of_the_handler(message):
    """It is answered and recorded as a 500, and nothing runs again."""
    effects: list[int] = []
    door = protected(sending(message, piece(b"x"), effects=effects))
    connection = Connection()
    answer, retry = await connection.run(door), await ask(door)
    assert (answer.code, retry.code, retry.replayed, len(effects)) == ("handler-failed", "handler-failed", True, 1)
    assert connection.error is not None


@in_loop
async def test_fields_may_come_from_any_iterable():
    """Read once, kept for both."""
    door = protected(sending({**start(), "headers": ((b"location", b"/%d" % n) for n in (1,))}, piece(b"x")))
    assert (await ask(door)).values("location") == ["/1"]
    assert (await ask(door)).values("location") == ["/1"]


@in_loop
async def test_gzip_of_several_members_is_not_cut():
    """What cannot be decoded in one go is sent as it was recorded."""
    body = gzip.compress(b"first-") + gzip.compress(b"second")
    door = protected(sending(start(headers=[(b"content-encoding", b"gzip")]), piece(body)))
    await ask(door)
    retry = await ask(door, headers=[(b"accept-encoding", b"identity")])
    assert gzip.decompress(retry.body) == b"first-second"


@in_loop
async def test_a_defect_in_the_flow_leaves_the_outcome_unknown_and_delivers_it(monkeypatch):
    """The record does not look alive until its lease ends, and the client gets what the handler answered."""

    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(retrysafe.protocol.flow, "seal", fail)
    shop, store = Shop(), MemoryStore()
    door = protected(shop, store)
    connection = Connection()
    answer = await connection.run(door)
    assert (answer.status, answer.values("idempotency-status")) == (201, ["unrecorded"])
    assert isinstance(connection.error, ZeroDivisionError)
    assert states(store) == [State.UNKNOWN]
    assert ((await ask(door)).code, shop.effects) == ("outcome-unknown", 1)


@in_loop
async def test_a_defect_in_the_flow_of_a_failed_handler_breaks_off(monkeypatch):
    """There is nothing to deliver; the record is unknown all the same."""

    def fail(*_):
        raise ZeroDivisionError

    async def application(*_):
        raise ConnectionError

    monkeypatch.setattr(retrysafe.protocol.flow, "seal", fail)
    store = MemoryStore()
    connection = Connection()
    answer = await connection.run(protected(application, store))
    assert (answer.status, states(store)) == (0, [State.UNKNOWN])


@pytest.mark.parametrize("account", [7, b"alice", 7.5])
@in_loop
async def test_a_scope_that_is_no_string_says_so(account):
    """The function of the application is at fault, and told what it gave; nothing runs."""
    shop = Shop()
    connection = Connection()
    await connection.run(IdempotencyMiddleware(shop, store=MemoryStore(), scope=lambda _: account))
    assert type(account).__name__ in str(connection.error)
    assert shop.effects == 0


@pytest.mark.parametrize("method", ["post", "Post"])
@in_loop
async def test_a_method_in_another_case_does_not_go_past_the_door(method):
    """Servers differ in what they make of it; a framework may fold it."""
    shop = Shop()
    door = protected(shop)
    await ask(door, f"{method} /orders")
    await ask(door, "POST /orders")
    assert shop.effects == 1


@in_loop
async def test_fields_that_come_late_are_not_seen():
    """A server may add trailers to its list while the content arrives; whom they name is not who asked."""
    seen: list[list[tuple[bytes, bytes]]] = []

    def authorize(connection):
        seen.append(connection["headers"])
        return (b"x-role", b"admin") not in connection["headers"]

    async def application(connection, _receive, send):
        seen.append(connection["headers"])
        await send(start())
        await send(piece())

    door = protected(application, authorize=authorize)
    for _ in range(2):
        connection = Connection()
        receive = connection.receive

        async def late(connection=connection, receive=receive):
            connection.scope["headers"].append((b"x-role", b"admin"))
            return await receive()

        connection.receive = late  # type: ignore[method-assign] # a server that reads trailers
        assert (await connection.run(door)).status == 201
    assert len(seen) == 2
    assert all((b"x-role", b"admin") not in headers for headers in seen)


@in_loop
async def test_a_door_within_a_door_lets_the_outer_one_protect():
    """Two layers over one store are one: the inner must not find the outer's claim and refuse for ever."""
    shop, store = Shop(), MemoryStore()
    door = protected(protected(shop, store), store)
    first, retry = await ask(door), await ask(door)
    assert (first.status, retry.replayed, shop.effects) == (201, True, 1)


@pytest.mark.parametrize("key", ["k-2", None])
@in_loop
async def test_a_request_that_starts_in_the_context_of_another(key):
    """As uvicorn starts the next one of a connection: it is another operation, or none, and protected as any."""
    seen: list[Operation | None] = []

    async def application(connection, _receive, send):
        seen.append(current_operation())
        await send(start())
        await send(piece())
        if connection["path"] == "/first":
            for _ in range(2):
                assert (await Connection("POST /second", key=key).run(door)).status == 201

    door = protected(application)
    assert (await ask(door, "POST /first")).status == 201
    first, *others = [operation and operation.key for operation in seen]
    assert (first, others) == ("k-1", ["k-2"] if key else [None, None])


@in_loop
async def test_what_was_cut_off_is_what_was_not_concluded():
    """A handler whose outcome is recorded may linger; its record is not unknown, and nobody is told so."""
    store, noted = MemoryStore(), Noted()

    async def lingering(_connection, _receive, send):
        await send(start())
        await send(piece())
        await asyncio.Event().wait()

    door = protected(lingering, store, drain="10ms", observer=noted)
    connection = Connection()
    request = asyncio.create_task(connection.run(door))
    while not connection.answer.whole:  # noqa: ASYNC110 - a server offers no event
        await asyncio.sleep(0)
    await door.close()
    await asyncio.wait([request])
    assert (noted.of(CutOff), states(store)) == ([CutOff(0)], [State.COMPLETED])


@in_loop
async def test_a_refusal_tells_a_gateway_that_nothing_ran():
    """So that a layer in front does not record it as the outcome."""
    store = TamperedStore(MemoryStore(), before=lambda _: None)
    store.away = True
    for answer in (await ask(protected(Shop(), store)), await ask(protected(Shop()), key="")):
        assert answer.values("idempotency-effect") == ["none"]
    shop = Shop(meanwhile=None)
    assert (await ask(protected(shop))).values("idempotency-effect") == []
    assert CompleteIfHeld.__name__ not in store.done
