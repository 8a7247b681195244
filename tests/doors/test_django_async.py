"""Django's middleware on an event loop of this process: what a server may do to the responses that it gets."""

from __future__ import annotations

import asyncio
import gc
import types
import uuid

import pytest
from django.http import HttpResponse, StreamingHttpResponse
from django.test import AsyncRequestFactory, override_settings
from django.urls import path

from retrysafe.django import IdempotencyMiddleware
from retrysafe.stores.memory import MemoryStore
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
