"""The door at Django: middleware for its list, in both of Django's modes."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import Awaitable
from functools import partial
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction

from retrysafe.django.enrolment import Enrolment
from retrysafe.django.exchange import Exchange, GetResponse
from retrysafe.django.exchange_async import AsyncExchange, outcome_of
from retrysafe.django.observed import observe, observe_async
from retrysafe.django.settings import Configuration, close_stores, configuration, records_alias
from retrysafe.drive import aio, sync
from retrysafe.drive.tally import BlockingTally, Tally
from retrysafe.errors import StoreError, StoreUnusable
from retrysafe.observe import StoreFailed
from retrysafe.operation.handle import begin, begin_without
from retrysafe.operation.notebook import Notebook
from retrysafe.operation.transaction import StoreKeeper
from retrysafe.protocol.effects import Flow
from retrysafe.protocol.flow import Answer, Terms, protect, refuse_unready
from retrysafe.server.marker import MarkedRoutes
from retrysafe.server.observing import Watcher
from retrysafe.server.routes import Route

# On a request that such a middleware protects: one is enough.
_PROTECTED = "retrysafe_protected"


class IdempotencyMiddleware:
    """Makes views safe to retry. It stands in `MIDDLEWARE`, behind what authenticates; its settings are `IDEMPOTENCY`.

    Args:
        get_response: what Django gives every middleware.

    Raises:
        ConfigurationError: with everything that is wrong with the settings.
    """

    sync_capable = async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self.door: Door | AsyncDoor
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)
            self.door = AsyncDoor(get_response, configuration())
        else:
            self.door = Door(get_response, configuration())

    def __call__(self, request: Any) -> Any:
        """One request."""
        return self.door(request)


class _Opened:
    """What both modes share: the settings, and the store, which is opened once in each process."""

    _driver: sync.Driver | aio.Driver

    def __init__(self, get_response: GetResponse, settings: Configuration) -> None:
        self._get_response = get_response
        self._settings = settings
        self._enrolment = Enrolment(settings.routes, MarkedRoutes(settings.policy, settings.store))
        self._secret: bytes | None = None
        self._opening = threading.Lock()
        self._watcher = Watcher(
            settings.store,
            settings.secret,
            settings.namespace,
            settings.encryption,
            settings.observer,
            anonymous=settings.anonymous,
        )
        _ALL.add(self)

    def open(self) -> None:
        """Make the store ready; the first protected request does it. A door that only observes starts without it.

        Raises:
            StoreError: it cannot be reached, or must not be used.
        """
        with self._opening:
            if self._secret is None and not self._settings.only_observes:
                try:
                    self._secret = self._settings.store.open(self._settings.secret)
                except StoreUnusable as error:
                    if records_alias() is None:
                        raise
                    raise StoreUnusable(f"{error}. If its tables are not made yet: manage.py migrate") from error
                self._driver.waiting.resume()

    def _route(self, request: Any) -> Route | None:
        """What the request falls under; None lets it pass."""
        begin_without()  # a server may start it in the context of the one before
        if hasattr(request, _PROTECTED):
            return None
        route = self._enrolment.route_of(request)
        if route is not None:
            setattr(request, _PROTECTED, True)
        return route

    def _observes(self, route: Route) -> bool:
        return self._settings.observes(route.policy)

    def _terms(self, route: Route) -> Terms:
        settings = self._settings
        token, secret = os.urandom(16), self._secret or b""
        return Terms(
            route.policy, settings.namespace, secret, token, settings.anonymous, route.entry, settings.encryption
        )

    def _flow(self, exchange: Exchange | AsyncExchange, terms: Terms) -> Flow[Answer]:
        return refuse_unready(exchange.head, terms) if self._secret is None else protect(exchange.head, terms)

    def close(self) -> None:
        """Let the store go; the end of the process does it."""
        self._watcher.close()
        self._secret = None
        if self._settings.owns_store:
            self._settings.store.close()


class Door(_Opened):
    """In Django's blocking mode.

    Args:
        get_response: runs the view.
        settings: of the project.
    """

    def __init__(self, get_response: GetResponse, settings: Configuration) -> None:
        super().__init__(get_response, settings)
        self._observer = BlockingTally(settings.observer, settings.store)
        self._driver: sync.Driver = sync.Driver(settings.store, self._observer)
        keeper = StoreKeeper(settings.store, self._driver.renewals.stop, settings.encryption)
        self._begin = partial(begin, make_steps=partial(Notebook, settings.store, self._observer), keeper=keeper)

    def __call__(self, request: Any) -> Any:
        """One request."""
        route = self._route(request)
        if route is None:
            return self._get_response(request)
        if self._observes(route):
            return observe(self._get_response, request, route, self._watcher, self._settings.resolver)
        self._open_late()
        terms, settings = self._terms(route), self._settings
        exchange = Exchange(
            self._get_response, request, route, terms, self._begin, settings.resolver, settings.authorize
        )
        held = self._driver.start(self._flow(exchange, terms), exchange)
        return exchange.run(held) if isinstance(held, sync.Held) else exchange.answered(held)

    def _open_late(self) -> None:
        try:
            self.open()
        except StoreError as error:
            self._observer.notice(StoreFailed("open", str(error)))

    def close(self) -> None:
        """Let the store go."""
        self._driver.waiting.end()
        self._observer.flush()
        super().close()


class AsyncDoor(_Opened):
    """In Django's asynchronous mode; the arguments are those of `Door`."""

    def __init__(self, get_response: GetResponse, settings: Configuration) -> None:
        super().__init__(get_response, settings)
        self._observer = Tally(settings.observer, settings.store)
        self._driver: aio.Driver = aio.Driver(settings.store, self._observer)
        keeper = StoreKeeper(settings.store, self._driver.renewals.stop, settings.encryption)
        self._begin = partial(begin, make_steps=partial(Notebook, settings.store, self._observer), keeper=keeper)
        self._running: set[asyncio.Task[None]] = set()

    def __call__(self, request: Any) -> Awaitable[Any]:
        """One request."""
        route = self._route(request)
        if route is None:
            passed: Awaitable[Any] = self._get_response(request)
            return passed
        if self._observes(route):
            return observe_async(self._get_response, request, route, self._watcher, self._settings.resolver)
        return self._protected(request, route)

    async def _protected(self, request: Any, route: Route) -> Any:
        if self._secret is None:
            await self._open_late()
        terms, settings = self._terms(route), self._settings
        exchange = AsyncExchange(
            self._get_response, request, route, terms, self._begin, settings.resolver, settings.authorize
        )
        running = asyncio.get_running_loop().create_task(self._driver.run(self._flow(exchange, terms), exchange))
        self._running.add(running)  # what keeps it alive while the response is sent
        running.add_done_callback(self._running.discard)
        return await outcome_of(exchange, running)

    async def _open_late(self) -> None:
        try:
            await asyncio.to_thread(self.open)
        except StoreError as error:
            self._observer.notice(StoreFailed("open", str(error)))

    async def drain(self) -> None:
        """Wait for running views, as long as the settings say; then let the store go."""
        await self._driver.drain(self._settings.drain_s)
        await self._observer.flush()
        await asyncio.to_thread(self.close)


_ALL: weakref.WeakSet[_Opened] = weakref.WeakSet()


async def open_all() -> None:
    """Make the stores of this process ready, before its server takes requests.

    Raises:
        StoreError: one cannot be reached, or must not be used.
    """
    for door in list(_ALL):
        await asyncio.to_thread(door.open)


async def drain_all() -> None:
    """Wait for the running views of this process, and let its stores go."""
    for door in list(_ALL):
        if isinstance(door, AsyncDoor):
            await door.drain()


def close_all() -> None:
    """Let go of every store of this process, and of its connections; what needs one opens it again.

    The end of the process does it. A runner of tests does it before it drops their database.
    """
    for door in list(_ALL):
        door.close()
    close_stores()


atexit.register(close_all)
