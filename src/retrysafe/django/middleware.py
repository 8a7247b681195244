"""The door at Django: middleware for its list, in both of Django's modes."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction

from retrysafe.django import messages
from retrysafe.django.enrolment import Enrolment
from retrysafe.django.exchange import Exchange
from retrysafe.django.exchange_async import AsyncExchange, outcome_of
from retrysafe.django.observed import observe, observe_async
from retrysafe.django.protected import GetResponse, Work
from retrysafe.django.redrive import DjangoRedrive, reconciling
from retrysafe.django.settings import Configuration, close_stores, configuration, records_alias
from retrysafe.drive import aio, sync
from retrysafe.drive.tally import BlockingTally, Tally
from retrysafe.errors import CallerError, StoreError, StoreUnusable
from retrysafe.observe import StoreFailed
from retrysafe.operation.handle import Begin, begin, begin_without
from retrysafe.operation.notebook import Notebook
from retrysafe.operation.recovery import Means, Report
from retrysafe.operation.transaction import StoreKeeper
from retrysafe.protocol.answers import Answer
from retrysafe.protocol.effects import Flow
from retrysafe.protocol.flow import Terms, protect, refuse_unready
from retrysafe.protocol.published import Published
from retrysafe.protocol.status import inquire
from retrysafe.server.inquiry import own_answer
from retrysafe.server.marker import MarkedRoutes
from retrysafe.server.noted import NOTED
from retrysafe.server.observing import Watcher
from retrysafe.server.recovery import Recovery, RecoveryOnALoop, RecoveryOnThreads
from retrysafe.server.routes import Route
from retrysafe.server.settings import protected_entries


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
    _begin: Begin

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
        NOTED.add(self)

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
        if hasattr(request, messages.PROTECTED):
            return None
        status = self._settings.status
        is_inquiry = status is not None and request.path_info == status.entry
        route = status if is_inquiry else self._enrolment.route_of(request)
        if route is not None:
            setattr(request, messages.PROTECTED, True)
        return route

    def _observes(self, route: Route) -> bool:
        return self._settings.observes(route.policy)

    def _own_answer(self, request: Any) -> Any:
        """The answer at a path of the door itself that needs no look at a record; None for every other request."""
        if hasattr(request, messages.PROTECTED):  # by one further out, whose operation this is
            return None
        begin_without()  # a server may start it in the context of the one before
        status, contract_path = self._settings.status, self._settings.contract_path
        own = own_answer(request.method.upper(), request.path_info, status, contract_path, self.published)
        return None if own is None else messages.respond(own)

    def published(self) -> Published:
        """What the door promises to clients; of routes that are only observed nothing."""
        status = self._settings.status
        entries = protected_entries(self._enrolment.entries(), only_observes=self._settings.only_observes)
        return Published(self._settings.scope, entries, None if status is None else status.entry)

    def _terms(self, route: Route, request: Any) -> Terms:
        settings = self._settings
        token, secret = os.urandom(16), self._secret or b""
        mounted_at = request.META.get("SCRIPT_NAME", "")
        return Terms(
            route.policy,
            settings.namespace,
            secret,
            token,
            settings.anonymous,
            route.entry,
            settings.encryption,
            settings.reauthenticate is not None,
            (request.scheme, mounted_at),
            settings.contract_path and mounted_at + settings.contract_path,
        )

    def _work(self, request: Any, route: Route, terms: Terms) -> Work:
        settings = self._settings
        return Work(self._get_response, request, route, terms, self._begin, settings.resolver, settings.authorize)

    def _flow(self, route: Route, exchange: Exchange | AsyncExchange, terms: Terms) -> Flow[Answer]:
        if self._secret is None:
            return refuse_unready(exchange.head, terms)
        if route is self._settings.status:
            return inquire(exchange.head, terms, self._enrolment.policy_of)
        return protect(exchange.head, terms)

    @property
    def recovers(self) -> bool:
        """It was told what to do about operations that nobody drives any more."""
        return self._settings.reauthenticate is not None or self._settings.reconcile is not None

    async def recover(self, told: Callable[[Report], None] = lambda _: None) -> Report:
        """Look once for operations that nobody drives any more. The door must be open.

        Args:
            told: now and then, with what was done up to then.

        Raises:
            StoreError: the store failed; what was done by then stays so.
            CallerError: the door is not open.
        """
        return await self._recovery().once(told)

    def _recovery(self) -> Recovery:
        if self._secret is None:
            raise CallerError("the door is not open: its store cannot be asked")
        settings = self._settings
        means = Means(settings.store, settings.namespace, self._secret, settings.encryption)
        redrive = DjangoRedrive(self._get_response, self._enrolment, settings, self._driver, self._begin, means)
        return Recovery(redrive, means, reconciling(settings.reconcile), settings.observer)

    async def start(self) -> None:
        """Make the store ready, for a process that serves nothing."""
        await asyncio.to_thread(self.open)

    def finish(self) -> None:
        """Write what is still to be written. The store stays, because other doors of the process may use it."""
        self._watcher.close()

    def close(self) -> None:
        """Let the store go; the end of the process does it."""
        self.finish()
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
        self._recovering = RecoveryOnThreads(self._recovery, settings.every_s)

    def __call__(self, request: Any) -> Any:
        """One request."""
        if (own := self._own_answer(request)) is not None:
            return own
        route = self._route(request)
        if route is None:
            return self._get_response(request)
        if self._observes(route):
            return observe(self._get_response, request, route, self._watcher, self._settings.resolver)
        self._open_late()
        terms = self._terms(route, request)
        exchange = Exchange(self._work(request, route, terms))
        held = self._driver.start(self._flow(route, exchange, terms), exchange)
        return exchange.run(held) if isinstance(held, sync.Held) else exchange.answered(held)

    def _open_late(self) -> None:
        try:
            self.open()
        except StoreError as error:
            self._observer.notice(StoreFailed("open", str(error)))
            return
        self._recovering.ensure()

    async def stop(self) -> None:
        """Let the store go, beside an event loop."""
        await asyncio.to_thread(self.close)

    def finish(self) -> None:
        """Write what is still to be written, and let nobody wait any longer."""
        self._recovering.end()
        self._driver.waiting.end()
        self._observer.flush()
        super().finish()


class AsyncDoor(_Opened):
    """In Django's asynchronous mode; the arguments are those of `Door`."""

    def __init__(self, get_response: GetResponse, settings: Configuration) -> None:
        super().__init__(get_response, settings)
        self._observer = Tally(settings.observer, settings.store)
        self._driver: aio.Driver = aio.Driver(settings.store, self._observer)
        keeper = StoreKeeper(settings.store, self._driver.renewals.stop, settings.encryption)
        self._begin = partial(begin, make_steps=partial(Notebook, settings.store, self._observer), keeper=keeper)
        self._running: set[asyncio.Task[None]] = set()
        self._recovering = RecoveryOnALoop(settings.every_s)

    def __call__(self, request: Any) -> Awaitable[Any]:
        """One request."""
        if (own := self._own_answer(request)) is not None:
            return _at_once(own)
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
        terms = self._terms(route, request)
        exchange = AsyncExchange(self._work(request, route, terms))
        running = asyncio.get_running_loop().create_task(self._driver.run(self._flow(route, exchange, terms), exchange))
        self._running.add(running)  # what keeps it alive while the response is sent
        running.add_done_callback(self._running.discard)
        return await outcome_of(exchange, running)

    async def serve(self) -> None:
        """Make the store ready, and look for operations that nobody drives any more, as the settings say.

        Raises:
            StoreError: it cannot be reached, or must not be used.
        """
        await self.start()
        self._recovering.ensure(self._recovery)

    async def _open_late(self) -> None:
        try:
            await self.serve()
        except StoreError as error:
            self._observer.notice(StoreFailed("open", str(error)))

    async def drain(self) -> None:
        """Wait for running views, as long as the settings say, and write what is still to be written."""
        await self._recovering.end()
        await self._driver.drain(self._settings.drain_s)
        await self._observer.flush()
        await asyncio.to_thread(self.finish)

    async def stop(self) -> None:
        """The same, and then let the store go."""
        await self.drain()
        await asyncio.to_thread(self.close)


async def _at_once(response: Any) -> Any:
    return response


async def serve_all() -> None:
    """Make the stores of this process ready, before its server takes requests.

    Raises:
        StoreError: one cannot be reached, or must not be used.
    """
    for door in list(NOTED):
        await (door.serve() if isinstance(door, AsyncDoor) else door.start())


async def drain_all() -> None:
    """Wait for the running views of this process, and let its stores go."""
    doors = [door for door in NOTED if isinstance(door, AsyncDoor)]
    for door in doors:
        await door.drain()
    for door in doors:
        await asyncio.to_thread(door.close)


def close_all() -> None:
    """Let go of every store of this process, and of its connections; what needs one opens it again.

    The end of the process does it. A runner of tests does it before it drops their database.
    """
    doors = list(NOTED)
    for door in doors:
        door.finish()
    for door in doors:
        door.close()
    close_stores()


atexit.register(close_all)
