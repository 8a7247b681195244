"""Recovery beside running applications: through the doors of an ASGI or WSGI application, without serving it."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

from retrysafe.asgi import IdempotencyMiddleware
from retrysafe.errors import ConfigurationError, StoreError, StoreUnavailable
from retrysafe.operation.recovery import Counts, Report
from retrysafe.server.asgi import DOORS
from retrysafe.server.capture import Message
from retrysafe.server.handling import Application
from retrysafe.server.noted import NotedDoor, noted_door_of
from retrysafe.server.routed import door_of
from retrysafe.wsgi import IdempotencyMiddleware as WsgiDoor

Told = Callable[[Report], None]

_START, _STOP = "lifespan.startup", "lifespan.shutdown"


class Recovering(Protocol):
    """A door, as it is asked here."""

    @property
    def recovers(self) -> bool:
        """It was told what to do about operations that nobody drives any more."""

    async def recover(self, told: Told) -> Report:
        """Look once for operations that nobody drives any more."""


def doors_of(application: Any, name: str) -> AbstractAsyncContextManager[Sequence[Recovering]]:
    """The doors of an application, open for as long as the context lasts; nothing is served.

    Args:
        application: of ASGI or WSGI. Of WSGI it is the door itself, or has it as its `wsgi_app`, as Flask's have; or it
            is Django's, of either.
        name: for people.
    """
    door = getattr(application, "wsgi_app", application)
    if isinstance(door, WsgiDoor):
        return _opened(door)
    noted = noted_door_of(application)
    return started(application, name) if noted is None else _noted(noted)


@asynccontextmanager
async def _opened(door: WsgiDoor) -> AsyncIterator[Sequence[Recovering]]:
    await asyncio.to_thread(door.open)
    try:
        yield [door]
    finally:
        await asyncio.to_thread(door.close)


@asynccontextmanager
async def _noted(door: NotedDoor) -> AsyncIterator[Sequence[Recovering]]:
    await door.start()
    try:
        yield [door]
    finally:
        await door.stop()


@asynccontextmanager
async def started(application: Application, name: str) -> AsyncIterator[Sequence[Recovering]]:
    """An ASGI application, started as by a server and stopped at the end. Its doors, open.

    Args:
        application: it.
        name: for people.

    Raises:
        ConfigurationError: no door was reached by its lifespan.
        StoreUnavailable: it says that it cannot start.
    """
    doors: list[IdempotencyMiddleware] = []
    lifespan = _Lifespan()
    connection = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}, DOORS: doors}
    serving = asyncio.get_running_loop().create_task(lifespan.run(application, connection))
    try:
        is_up = await lifespan.said(_START)
        if not doors and (door := door_of(application)) is not None:
            doors.append(door)  # a plugin's, which no lifespan reaches
        if not doors:
            raise ConfigurationError([f"{name} has no door that its lifespan reaches; name what a server runs"])
        if not is_up:
            raise StoreUnavailable(f"{name} does not start: {lifespan.reason}")
        yield doors
    finally:
        lifespan.heard.put_nowait({"type": _STOP})
        await serving


class _Lifespan:
    """The server's side of a lifespan."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[Message] = asyncio.Queue()
        self.reason = ""

    async def run(self, application: Application, connection: dict[str, Any]) -> None:
        """Until the application is over with it."""
        self.heard.put_nowait({"type": _START})
        try:
            await application(connection, self.heard.get, self._answers.put)
        except Exception as error:  # noqa: BLE001 - whatever it is: one that does not speak lifespan raises anything
            self._answers.put_nowait({"type": f"{_START}.failed", "message": f"{type(error).__name__}: {error}"})

    async def said(self, event: str) -> bool:
        """Wait for its answer; whether that is that all is well."""
        answer = await self._answers.get()
        self.reason = answer.get("message", "")
        return bool(answer["type"] == f"{event}.complete")


async def run(
    doors: AbstractAsyncContextManager[Sequence[Recovering]],
    every_s: float | None,
    told: Told,
    failed: Callable[[StoreError], None],
) -> Report:
    """Look for operations that nobody drives any more: once, or until SIGTERM or SIGINT.

    Args:
        doors: that open and close.
        every_s: about how long to wait between two passes; None for one pass alone.
        told: with what the one pass has done up to then, or what each of many came to.
        failed: told when a store failed in one of many passes; it is asked again in the next.

    Returns:
        What the one pass came to; of many, nothing.

    Raises:
        ConfigurationError: there is nothing to do.
        StoreError: a store failed; what was done by then stays so.
    """
    async with doors as opened:
        able = [door for door in opened if door.recovers]
        if not able:
            raise ConfigurationError(["neither reauthenticate nor reconcile is set: there is nothing to do"])
        if every_s is None:
            return await _once(able, told)
        await _until_stopped(able, every_s, told, failed)
        return Report({})


async def _once(doors: Sequence[Recovering], told: Told) -> Report:
    done: Counts = Counter()

    def tell(now: Report) -> None:
        told(Report(dict(done + Counter(now.counts))))

    for door in doors:
        done.update((await door.recover(tell)).counts)
    return Report(dict(done))


async def _until_stopped(
    doors: Sequence[Recovering], every_s: float, told: Told, failed: Callable[[StoreError], None]
) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    stopping = loop.create_task(stop.wait())
    while not stopping.done():
        passing = loop.create_task(_once(doors, told))
        await asyncio.wait({passing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not passing.done():
            passing.cancel()  # the requests that it has sent again run on, until the doors are closed
            await asyncio.wait({passing})
        elif isinstance(error := passing.exception(), StoreError):
            failed(error)
        else:
            told(passing.result())
        pause_s = every_s * random.uniform(0.5, 1.0)  # noqa: S311 - hosts that were started together drift apart
        await asyncio.wait({stopping}, timeout=pause_s)
