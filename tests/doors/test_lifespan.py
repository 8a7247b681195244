"""The lifespan of a server around the door, for applications that speak it and for those that do not."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from retrysafe.asgi import IdempotencyMiddleware
from retrysafe.errors import StoreUnusable
from retrysafe.model import State
from retrysafe.stores.memory import MemoryStore
from tests.doors.connections import Connection, ask, protected
from tests.doors.handlers import Shop
from tests.drive.harness import TamperedStore, eventually, in_loop, states


class _Server:
    """The lifespan connection of a server. Like hypercorn's, it raises where a start-up is said to have failed."""

    def __init__(self, app):
        self.told: list[str] = []
        self.messages: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self.serving = asyncio.create_task(app({"type": "lifespan", "state": {}}, self.messages.get, self._send))
        self.messages.put_nowait({"type": "lifespan.startup"})

    async def _send(self, message):
        self.told.append(message["type"].removeprefix("lifespan."))
        if message["type"] == "lifespan.startup.failed":
            raise _StartupFailed(message["message"])

    async def started(self) -> None:
        await eventually(lambda: self.told or self.serving.done())

    async def stop(self) -> None:
        self.messages.put_nowait({"type": "lifespan.shutdown"})
        await self.serving


class _StartupFailed(Exception):
    """The server stops."""


class _Store(TamperedStore):
    """Tells how often it was opened and closed."""

    def __init__(self):
        super().__init__(MemoryStore())
        self.opened = self.closed = 0

    def open(self, secret=None):
        self.opened += 1
        return super().open(secret)


async def _speechless(scope, receive, send):
    """An application of requests only, as the first lines of many are."""
    assert scope["type"] == "http"
    await Shop()(scope, receive, send)


async def _indifferent(scope, receive, send):
    """An application that returns at once from what is no request."""
    if scope["type"] == "http":
        await Shop()(scope, receive, send)


async def _half_hearted(scope, receive, send):
    """An application that is told of the start and of nothing else."""
    if scope["type"] == "http":
        await Shop()(scope, receive, send)
        return
    await receive()
    await send({"type": "lifespan.startup.complete"})


def _starlette(events=None, fail=None):
    @asynccontextmanager
    async def lifespan(_):
        if fail == "startup":
            raise RuntimeError("no pool")
        (events if events is not None else []).append("up")
        yield {"pool": "open"}
        (events if events is not None else []).append("down")
        if fail == "shutdown":
            raise RuntimeError("pool is stuck")

    async def order(request):
        return PlainTextResponse(request.scope.get("state", {}).get("pool", ""), 201)

    return Starlette(routes=[Route("/orders", order, methods=["POST"])], lifespan=lifespan)


@pytest.mark.parametrize("app", [_speechless, _indifferent, _half_hearted, _starlette()],
                         ids=["raises", "returns", "returns after the start", "starlette"])  # fmt: skip
@in_loop
async def test_a_start_and_a_stop(app):
    """Whether the application speaks lifespan or not: the store is opened first and drained at the end."""
    store, shop_gate = _Store(), asyncio.Event()

    async def slow(scope, receive, send):
        if scope["type"] == "http":
            await shop_gate.wait()
        await app(scope, receive, send)

    door = protected(slow, store)
    server = _Server(door)
    await server.started()
    assert (server.told, store.opened) == (["startup.complete"], 1)
    request = asyncio.create_task(Connection().run(door))
    await eventually(lambda: states(store) == [State.IN_PROGRESS])
    stopping = asyncio.create_task(server.stop())
    for _ in range(20):
        await asyncio.sleep(0)
    assert "shutdown.complete" not in server.told
    shop_gate.set()
    await stopping
    assert server.told == ["startup.complete", "shutdown.complete"]
    assert ((await request).status, states(store)) == (201, [State.COMPLETED])


@in_loop
async def test_the_application_outlives_its_handlers():
    """Running handlers are waited for before the application takes down what they use."""
    events: list[str] = []
    gate = asyncio.Event()
    inner = _starlette(events)

    async def slow(scope, receive, send):
        if scope["type"] == "http":
            await gate.wait()
            events.append("handled")
        await inner(scope, receive, send)

    door = protected(slow)
    server = _Server(door)
    await server.started()
    request = asyncio.create_task(Connection().run(door))
    await eventually(lambda: door._driver._owners)
    stopping = asyncio.create_task(server.stop())
    for _ in range(20):
        await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(stopping, request)
    assert events == ["up", "handled", "down"]


@in_loop
async def test_an_unusable_store_stops_the_start():
    """The server is told why, and the application is never started."""
    events: list[str] = []
    store = MemoryStore()
    store.open(b"0123456789abcdef-one")
    server = _Server(protected(_starlette(events), store, secret="0123456789abcdef-two"))
    with pytest.raises(_StartupFailed, match="differs"):
        await server.serving
    assert (server.told, events) == (["startup.failed"], [])


@in_loop
async def test_a_store_out_of_reach_stops_the_start(tmp_path):
    """The folder of its file is not there: the server is told which, and the application is never started."""
    events: list[str] = []
    url = f"sqlite:///{tmp_path}/not/there.db"
    server = _Server(IdempotencyMiddleware(_starlette(events), store=url, scope="header:X-Account"))
    with pytest.raises(_StartupFailed, match=r"there\.db"):
        await server.serving
    assert (server.told, events) == (["startup.failed"], [])


@in_loop
async def test_a_store_out_of_reach_refuses_each_request(tmp_path):
    """Without a lifespan: 503 and nothing runs, until the file can be made."""
    shop = Shop()
    door = IdempotencyMiddleware(shop, store=f"sqlite:///{tmp_path}/not/there.db", scope="header:X-Account")
    assert ((await ask(door)).code, shop.effects) == ("store-unavailable", 0)
    (tmp_path / "not").mkdir()
    assert ((await ask(door)).status, (await ask(door)).replayed, shop.effects) == (201, True, 1)
    await door.close()


@in_loop
async def test_an_application_that_cannot_start_stops_the_start():
    """What it says of its own start-up is passed on, and nothing contradicts it."""
    door = IdempotencyMiddleware(_starlette(fail="startup"), store="memory://", scope="header:X-Account")
    server = _Server(door)
    with pytest.raises(_StartupFailed, match="no pool"):
        await server.serving
    assert server.told == ["startup.failed"]
    assert isinstance(door._store, MemoryStore)
    assert door._store._closed


@in_loop
async def test_an_application_that_cannot_stop_is_heard():
    """What it says of its shutdown is passed on."""
    server = _Server(protected(_starlette(fail="shutdown")))
    await server.started()
    with pytest.raises(RuntimeError, match="pool is stuck"):
        await server.stop()
    assert server.told == ["startup.complete", "shutdown.failed"]


@in_loop
async def test_the_state_of_the_lifespan_reaches_the_handler():
    """The connection scope of the lifespan is the application's own."""
    app = _starlette()
    door = protected(app)
    state: dict[str, object] = {}
    messages: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    told = []

    async def send(message):
        told.append(message["type"])

    serving = asyncio.create_task(door({"type": "lifespan", "state": state}, messages.get, send))
    messages.put_nowait({"type": "lifespan.startup"})
    await eventually(lambda: told)
    assert (await ask(door, state=dict(state))).body == b"open"
    messages.put_nowait({"type": "lifespan.shutdown"})
    await serving


@in_loop
async def test_a_store_that_the_door_made_is_closed_with_it():
    """Given as a URL it is the door's own; given as an object it is its maker's."""
    own = IdempotencyMiddleware(Shop(), store="memory://", scope="header:X-Account")
    lent = protected(Shop())
    for door, closed in ((own, True), (lent, False)):
        server = _Server(door)
        await server.started()
        await server.stop()
        assert isinstance(door._store, MemoryStore)
        assert door._store._closed is closed


@in_loop
async def test_without_a_lifespan_the_first_request_opens_the_store():
    """The server does not call the lifespan: requests are protected all the same."""
    store = _Store()
    door = protected(Shop(), store)
    assert ((await ask(door)).status, (await ask(door)).replayed, store.opened) == (201, True, 1)


def test_an_unusable_store_refuses_each_request():
    """Without a lifespan nothing stops the server, so every keyed request is refused."""
    store, shop = MemoryStore(), Shop()
    store.open(b"0123456789abcdef-one")
    with pytest.raises(StoreUnusable):
        store.open(b"0123456789abcdef-two")
    door = protected(shop, store, secret="0123456789abcdef-two")
    assert (asyncio.run(ask(door)).code, shop.effects) == ("store-unavailable", 0)
