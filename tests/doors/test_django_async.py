"""Django's middleware on an event loop of this process: what a server may do to the responses that it gets."""

from __future__ import annotations

import asyncio
import gc
import types
import uuid

import pytest
from django.http import HttpResponse, StreamingHttpResponse
from django.test import AsyncRequestFactory, RequestFactory, override_settings
from django.urls import path

from retrysafe.django import IdempotencyMiddleware
from retrysafe.django.middleware import close_all, drain_all
from retrysafe.operate.observed import take_observed
from retrysafe.protocol.observing import Sight
from retrysafe.stores.location import open_store
from retrysafe.stores.memory import MemoryStore
from tests.drive.harness import in_loop
from tests.operation.django_setup import set_up

set_up()

PIECES = [b"one,", b"two,", b"three"]


class Shop:
    """A door around a view, in Django's asynchronous mode."""

    def __init__(self):
        self.ran = 0
        self.begun = asyncio.Event()
        self.end = asyncio.Event()
        urls = types.ModuleType("urls")
        urls.urlpatterns = [path("orders", self.view)]  # type: ignore[attr-defined]  # as every module of paths has it
        self.settings = {"STORE": MemoryStore(), "SCOPE": "authorization"}
        self.urls = urls
        with self.project():
            self.door = IdempotencyMiddleware(self.view)

    def project(self):
        return override_settings(ROOT_URLCONF=self.urls, IDEMPOTENCY=self.settings)

    async def view(self, request):
        """Answers at once, or piece by piece."""
        self.ran += 1
        self.begun.set()
        if request.headers.get("X-Whole"):
            await self.end.wait()
            return HttpResponse(b"".join(PIECES), status=201)
        return StreamingHttpResponse(self.pieces(), status=201)

    async def pieces(self):
        for piece in PIECES:
            yield piece
        self.end.set()

    async def ask(self, key, **headers):
        headers = {"idempotency-key": key, "authorization": "Bearer a", **headers}
        with self.project():
            return await self.door(AsyncRequestFactory().post("/orders", headers=headers))

    async def settled(self, key, **headers):
        """The response to a retry, once the first attempt is over."""
        async with asyncio.timeout(10):
            while (response := await self.ask(key, **headers)).status_code == 409:  # noqa: ASYNC110 - a bounded poll
                await asyncio.sleep(0.01)
        return response


async def content(response):
    return b"".join([piece async for piece in response]) if response.streaming else response.content


def run(scenario):
    """One event loop for one scenario."""

    async def whole():
        await scenario(Shop(), uuid.uuid4().hex)

    asyncio.run(whole())


def test_it_is_taken():
    """To its end; and a retry gets it whole."""

    async def scenario(shop, key):
        assert await content(await shop.ask(key)) == b"".join(PIECES)
        again = await shop.settled(key)
        assert (again.content, again["Idempotent-Replayed"], shop.ran) == (b"".join(PIECES), "true", 1)

    run(scenario)


@pytest.mark.parametrize("taken", [0, 1])
def test_nobody_takes_it(taken):
    """It is dropped before its first piece, or in the middle: the view goes on, and its outcome is recorded."""

    async def scenario(shop, key):
        response = await shop.ask(key)
        pieces = aiter(response)
        for _ in range(taken):
            assert await anext(pieces) == PIECES[0]
        await pieces.aclose()
        del response, pieces
        gc.collect()
        async with asyncio.timeout(10):
            await shop.end.wait()
        again = await shop.settled(key)
        assert (again.content, again["Idempotent-Replayed"], shop.ran) == (b"".join(PIECES), "true", 1)

    run(scenario)


def test_the_request_is_cancelled():
    """As Django does when the client leaves: the view is not, and its outcome is recorded."""

    async def scenario(shop, key):
        asking = asyncio.create_task(shop.ask(key, **{"x-whole": "yes"}))
        async with asyncio.timeout(10):
            await shop.begun.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        shop.end.set()
        again = await shop.settled(key, **{"x-whole": "yes"})
        assert (again.content, again["Idempotent-Replayed"], shop.ran) == (b"".join(PIECES), "true", 1)

    run(scenario)


OBSERVING = {
    "SCOPE": "authorization", "MODE": "observe", "STATUS_PATH": "/status", "CONTRACT_PATH": "/contract",
}  # fmt: skip


@pytest.mark.parametrize("target", ["/status", "/contract"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_a_door_that_only_observes_answers_nothing_itself(method, target):
    """What is at its own paths is the application's, in both modes."""

    async def view_async(_):
        return HttpResponse("the application's")

    for view, factory in ((lambda _: HttpResponse("the application's"), RequestFactory()), (view_async, None)):
        with override_settings(IDEMPOTENCY={**OBSERVING, "STORE": MemoryStore()}, ROOT_URLCONF=Shop().urls):
            made = getattr(factory or AsyncRequestFactory(), method)(target, headers={"idempotency-key": "k-1"})
            answered = IdempotencyMiddleware(view)(made)
            answer = answered if factory else asyncio.run(_result(answered))
        assert answer.content == b"the application's"


async def _result(awaited):
    return await awaited


def test_a_door_that_only_observes_recovers_nothing():
    """It starts without its store, whatever it is to do about abandoned operations once it protects."""
    said = {"REAUTHENTICATE": lambda _: None, "ENCRYPTION_KEYS": "ab" * 32, "COMPLETE_ABANDONED": "1s"}
    shop = Shop()
    settings = {**OBSERVING, "SCOPE": "header:X-Account", "STORE": "mysql://shop@localhost:1/nowhere", **said}
    with override_settings(IDEMPOTENCY=settings):
        door = IdempotencyMiddleware(shop.view).door
    assert not door.recovers
    asyncio.run(door.serve())  # type: ignore[union-attr]  # in asynchronous mode


def test_a_content_that_cannot_be_read_again_is_watched_as_it_is_read():
    """As that of Django's own test client, which is no file: the view gets it whole."""

    async def view(request):
        return HttpResponse(request.body)

    store = MemoryStore()
    with override_settings(IDEMPOTENCY={**OBSERVING, "STORE": store}, ROOT_URLCONF=Shop().urls):
        middleware = IdempotencyMiddleware(view)
        for content in (b"one", b"one", b"two"):
            headers = {"idempotency-key": "k-1", "authorization": "Bearer a"}
            made = AsyncRequestFactory().post("/orders", content, content_type="text/plain", headers=headers)
            assert asyncio.run(_result(middleware(made))).content == content
    middleware.door.close()
    (counted,) = take_observed(store, 1)
    assert counted.counts == {Sight.FIRST: 1, Sight.REPLAYED: 1, Sight.MISMATCH: 1}


@pytest.mark.parametrize("ending", ["drain", "close"])
def test_doors_that_share_a_store_let_go_of_it_together(ending, tmp_path):
    """As several of one project do: what each has observed is written before the first of them closes the store."""
    url = f"sqlite:///{tmp_path}/observed.db"
    with override_settings(IDEMPOTENCY={**OBSERVING, "STORE": url}, ROOT_URLCONF=Shop().urls):
        doors = [IdempotencyMiddleware(_repeats) for _ in range(8)]
        for number, middleware in enumerate(doors):
            headers = {"idempotency-key": f"k-{number}", "authorization": "Bearer a"}
            asyncio.run(_result(middleware(AsyncRequestFactory().post("/orders", headers=headers))))
        if ending == "drain":
            asyncio.run(drain_all())
        else:
            close_all()
    store = open_store(url)
    store.open()
    (counted,) = take_observed(store, 1)
    store.close()
    assert counted.counts == {Sight.FIRST: 8}


@in_loop
async def test_a_running_view_has_its_store_until_it_has_ended(tmp_path):
    """Although another door of the project, over the same store, has nothing left to do."""
    shop = Shop()
    shop.settings = {"STORE": f"sqlite:///{tmp_path}/records.db", "SCOPE": "authorization"}
    with shop.project():
        others = [IdempotencyMiddleware(shop.view) for _ in range(8)]
        shop.door = IdempotencyMiddleware(shop.view)
    running = asyncio.create_task(shop.ask("k-1", **{"x-whole": "1"}))
    await shop.begun.wait()
    draining = asyncio.create_task(drain_all())
    await asyncio.sleep(0.3)
    shop.end.set()
    await draining
    assert (await running).status_code == 201
    again = await shop.ask("k-1", **{"x-whole": "1"})
    assert (again.headers["Idempotent-Replayed"], shop.ran, len(others)) == ("true", 1, 8)
    await drain_all()


async def _repeats(request):
    return HttpResponse(request.body)
