"""One request that is only observed, in either mode of Django: its view runs as ever, and a sighting is told."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.utils.functional import LazyObject, empty

from retrysafe.django import messages
from retrysafe.django.protected import GetResponse
from retrysafe.django.scope import Resolver, account, account_async
from retrysafe.server.observed_wsgi import WatchedInput, account_of
from retrysafe.server.observing import Watcher
from retrysafe.server.routes import Route
from retrysafe.server.sighting import COMPARED_BYTES_MAX, Sighting

_log = logging.getLogger("retrysafe")


def observe(get_response: GetResponse, request: Any, route: Route, watcher: Watcher, resolver: Resolver) -> Any:
    """Run the view exactly as without a door, and have the request counted; its response.

    Args:
        get_response: runs the view.
        request: Django's.
        route: that it falls under.
        watcher: of the door.
        resolver: finds the account.
    """
    sighting = watcher.look_at(route, messages.head_of(request))
    if sighting is None:
        return get_response(request)
    with _as_it_was(request):
        found = account_of(lambda it: account(resolver, it), request)
    sighting.belongs_to(found)
    _watch_content(request, sighting)
    try:
        response = get_response(request)
    except BaseException as failure:
        sighting.end(failure)
        raise
    return _told(response, request, sighting)


async def observe_async(
    get_response: GetResponse, request: Any, route: Route, watcher: Watcher, resolver: Resolver
) -> Any:
    """The same in asynchronous mode."""
    sighting = watcher.look_at(route, messages.head_of(request))
    if sighting is None:
        return await get_response(request)
    sighting.belongs_to(await _account(resolver, request))
    _watch_content(request, sighting)
    try:
        response = await get_response(request)
    except BaseException as failure:
        sighting.end(failure)
        raise
    return _told(response, request, sighting)


async def _account(resolver: Resolver, request: Any) -> str | None:
    try:
        with _as_it_was(request):
            return await account_async(resolver, request)
    except Exception as error:  # noqa: BLE001 - the application's own function
        _log.warning("SCOPE failed for an observed request: %s", type(error).__name__)
        return None


@contextmanager
def _as_it_was(request: Any) -> Iterator[None]:
    """Take back what Django remembers of a look at the user, because it makes a header of it.

    Of a session that was looked at, `Vary: Cookie` is said; that must tell of the view's own looks, and of no others.
    """
    kept = request.__dict__
    session, user = kept.get("session"), kept.get("user")
    was_accessed = getattr(session, "accessed", True)
    was_lazy = isinstance(user, LazyObject) and user.__dict__.get("_wrapped") is empty
    caches = [name for name in ("_cached_user", "_acached_user") if name not in kept]
    try:
        yield
    finally:
        if user is not None:
            kept["user"] = user  # the REST framework sets it to whom it has found
        if was_lazy:
            user.__dict__["_wrapped"] = empty
        for name in caches:
            kept.pop(name, None)
        if not was_accessed:
            with suppress(AttributeError):
                session.accessed = False


def _watch_content(request: Any, sighting: Sighting) -> None:
    """Have the sighting told of the content: at once, where Django has it, else as the view reads it."""
    if hasattr(request, "_body"):  # middleware further out has read it whole
        _tell(sighting, request.body)
    elif request._read_started:  # noqa: SLF001 - nothing public says so
        sighting.let_go()  # from the middle on nothing can be compared
    elif hasattr(request, "scope") and request._stream.seekable():  # noqa: SLF001 - all but that of its test client
        stream = request._stream  # noqa: SLF001 - Django has received it before, into a file of its own
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        if size <= COMPARED_BYTES_MAX:
            _tell(sighting, stream.read())
            stream.seek(0)
    elif length := messages.length_of(sighting.head):
        request._stream = WatchedInput(request._stream, sighting, length)  # noqa: SLF001 - as the engine gives it back
    else:
        sighting.whole()


def _tell(sighting: Sighting, content: bytes) -> None:
    sighting.take(content)
    sighting.whole()


def _told(response: Any, request: Any, sighting: Sighting) -> Any:
    """The response. One that is made as it is sent has ended when the server closes it."""
    if messages.has_failed(request):
        sighting.end(RuntimeError())
        return response
    sighting.answer(response.status_code, list(response.items()))
    if response.streaming:
        response._resource_closers.append(sighting.end)  # noqa: SLF001 - there is no public list of them
    else:
        sighting.end()
    return response
