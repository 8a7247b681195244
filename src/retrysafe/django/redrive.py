"""Stored requests sent again through the middleware, in the name of their account, in both of Django's modes."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from asgiref.sync import ThreadSensitiveContext, iscoroutinefunction, sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIRequest
from django.core.signals import request_started
from django.db import connections
from django.urls import set_script_prefix

from retrysafe.django import messages
from retrysafe.django.enrolment import Enrolment
from retrysafe.django.exchange import Exchange
from retrysafe.django.exchange_async import AsyncExchange, outcome_of
from retrysafe.django.protected import GetResponse, Work
from retrysafe.django.settings import Configuration
from retrysafe.drive import aio, sync
from retrysafe.operation.handle import Begin
from retrysafe.operation.recovery import Means, Reconcile
from retrysafe.protocol.answers import Answer
from retrysafe.protocol.effects import Flow
from retrysafe.protocol.flow import Terms
from retrysafe.protocol.stored_request import StoredRequest
from retrysafe.server.asgi_redrive import connection_of
from retrysafe.server.redrive import Identity, Redrive, Unheard
from retrysafe.server.routes import Route
from retrysafe.server.wsgi_redrive import environ_of, to_its_end


class DjangoRedrive(Redrive):
    """Through the middleware: the views behind it, and what middleware stands between.

    Args:
        get_response: runs the view.
        enrolment: of the door.
        settings: of the project.
        driver: of the door; its colour is the mode.
        begin: as for requests of clients.
        means: of the door.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what a door consists of
        self,
        get_response: GetResponse,
        enrolment: Enrolment,
        settings: Configuration,
        driver: sync.Driver | aio.Driver,
        begin: Begin,
        means: Means,
    ) -> None:
        super().__init__(enrolment.named, closing(settings.reauthenticate), means)
        self._get_response = get_response
        self._enrolment = enrolment
        self._settings = settings
        self._driver = driver
        self._begin = begin

    def _route(self, stored: StoredRequest) -> Route | None:
        return self._enrolment.route_of(self._made(stored, Identity()))

    def _request(self, stored: StoredRequest, identity: Identity, route: Route, terms: Terms) -> Unheard:
        request = self._made(stored, identity)
        work = Work(self._get_response, request, route, terms, self._begin, self._settings.resolver, None)
        if isinstance(self._driver, sync.Driver):
            return _Unheard(Exchange(work), request, self._driver)
        return _AsyncUnheard(AsyncExchange(work), request, self._driver)

    def _made(self, stored: StoredRequest, identity: Identity) -> Any:
        """The request, as Django makes it in the mode of the door."""
        sent = Identity(identity.headers)
        request: Any
        if isinstance(self._driver, sync.Driver):
            request = WSGIRequest(environ_of(stored, sent))
        else:
            request = ASGIRequest(connection_of(stored, sent), io.BytesIO(stored.body))
        # No browser has been lured into this. And who sent it the first time had to set a field of its own, which no
        # browser lets a page of another origin do unasked.
        request._dont_enforce_csrf_checks = True  # noqa: SLF001 - as Django's own test client says it
        for name, left in {messages.PROTECTED: True, **identity.connection}.items():
            setattr(request, name, left)
        return request


@contextmanager
def _on_this_thread(request: Any) -> Iterator[None]:
    """What Django's handler does around a request, as far as code of a project may rely on it."""
    set_script_prefix(request.META.get("SCRIPT_NAME") or "/")
    request_started.send(sender=DjangoRedrive, environ=request.META)
    try:
        yield
    finally:
        connections.close_all()  # they belong to the thread, which is one of a pool


class _Unheard:
    """A request whose answer nobody waits for, in Django's blocking mode."""

    def __init__(self, exchange: Exchange, request: Any, driver: sync.Driver) -> None:
        self._exchange = exchange
        self._request = request
        self._driver = driver

    @property
    def ending(self) -> str:
        """How it ended."""
        return self._exchange.ending

    async def drive(self, work: Flow[Answer]) -> None:
        """Drive it to its end, on a thread."""
        await asyncio.to_thread(to_its_end, self._drive, work)

    def _drive(self, work: Flow[Answer]) -> None:
        with _on_this_thread(self._request):
            held = self._driver.start(work, self._exchange)
            response = self._exchange.run(held) if isinstance(held, sync.Held) else self._exchange.answered(held)
            try:
                for _ in response:
                    pass
            finally:
                response.close()


class _AsyncUnheard:
    """The same in its asynchronous mode."""

    def __init__(self, exchange: AsyncExchange, request: Any, driver: aio.Driver) -> None:
        self._exchange = exchange
        self._request = request
        self._driver = driver

    @property
    def ending(self) -> str:
        """How it ended."""
        return self._exchange.ending

    async def drive(self, work: Flow[Answer]) -> None:
        """Drive it to its end."""
        async with ThreadSensitiveContext():
            set_script_prefix(self._request.META.get("SCRIPT_NAME") or "/")
            await request_started.asend(sender=DjangoRedrive, scope=self._request.scope)
            running = asyncio.get_running_loop().create_task(self._driver.run(work, self._exchange))
            response = await outcome_of(self._exchange, running)
            try:
                if response.streaming:
                    async for _ in response:
                        pass
                await running
            finally:
                await sync_to_async(response.close)()


def closing(function: Any) -> Any:
    """A function of the project's that is called on a thread of ours: its connections to databases end with it."""
    if function is None or iscoroutinefunction(function):
        return function

    @wraps(function)
    def called(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        finally:
            connections.close_all()

    return called


def reconciling(reconcile: Any) -> Reconcile | None:
    """The project's own function, on a thread: Django lets nobody ask its databases on an event loop."""
    if reconcile is None or iscoroutinefunction(reconcile):
        asked: Reconcile | None = reconcile
        return asked
    blocking = closing(reconcile)

    async def ask(view: Any) -> Any:
        return await asyncio.to_thread(blocking, view)

    return ask
