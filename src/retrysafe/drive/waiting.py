"""Requests that wait for another one with their key, instead of being told to come again (contract R47).

A waiter holds nothing and is no owner: it looks at the record again when it may have changed, and that is
all. An owner in the same process says so; for owners elsewhere the record is read now and then, once for all
who wait for it in this process, in growing steps. Whoever waits does so up to the time that its policy
allows, counted over all its waits, and no longer than its client or the server does.

`Waiting` is for asyncio, `BlockingWaiting` for threads.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from retrysafe.errors import StoreError
from retrysafe.model import Found
from retrysafe.observe import Observer, StoreFailed
from retrysafe.protocol.decision import in_flight
from retrysafe.protocol.effects import Wait, Waited, WaitEnd
from retrysafe.protocol.transitions import Read
from retrysafe.stores.contract import Store

POLL_FIRST_S = 0.05
POLL_MOST_S = 1.0
WAITERS_MAX = 1_000  # of one door; each holds a request with its content


class _Place:
    """Where requests wait for one record."""

    __slots__ = ("delay_s", "poll", "waiters")

    def __init__(self) -> None:
        self.waiters: dict[asyncio.Future[WaitEnd], None] = {}  # in the order in which they came
        self.poll: asyncio.Task[None] | None = None
        self.delay_s = POLL_FIRST_S

    def wake(self, end: WaitEnd) -> None:
        self.delay_s = POLL_FIRST_S
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(end)


class Waiting:
    """The waiting requests of one door.

    Args:
        store: of the records.
        observer: told when it cannot be read.
    """

    def __init__(self, store: Store, observer: Observer) -> None:
        self._store = store
        self._observer = observer
        self._places: dict[tuple[asyncio.AbstractEventLoop, bytes], _Place] = {}
        self._ended = False

    async def wait(self, wish: Wait, departure: Callable[[], Awaitable[None]]) -> Waited:
        """Wait until the record may have changed.

        Args:
            wish: what for, and how long.
            departure: returns when the client has gone.
        """
        loop = asyncio.get_running_loop()
        began_s = loop.time() if wish.began_s is None else wish.began_s
        left_s = began_s + wish.wait_ms / 1_000 - loop.time()
        if self._ended:
            return Waited(WaitEnd.STOPPED, began_s)
        if left_s <= 0 or self._count() >= WAITERS_MAX:
            return Waited(WaitEnd.OVER, began_s)
        waiter: asyncio.Future[WaitEnd] = loop.create_future()
        leaving = loop.create_task(_await(departure))
        self._enter(loop, wish.record_id, waiter)
        try:
            either: tuple[asyncio.Future[Any], ...] = (waiter, leaving)
            await asyncio.wait(either, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if waiter.done():
                return Waited(waiter.result(), began_s)
            return Waited(WaitEnd.CLIENT_GONE if leaving.done() else WaitEnd.OVER, began_s)
        finally:
            leaving.cancel()
            self._leave(loop, wish.record_id, waiter)

    def wake(self, record_id: bytes) -> None:
        """For an owner in this process: the record is settled."""
        if self._places and (place := self._places.get((asyncio.get_running_loop(), record_id))):
            place.wake(WaitEnd.CHANGED)

    def end(self) -> None:
        """Nobody waits any longer, nor from now on: the server stops."""
        self._ended = True
        for (loop, _), place in list(self._places.items()):
            with suppress(RuntimeError):  # that loop is closed, and whoever waited there is gone
                loop.call_soon_threadsafe(place.wake, WaitEnd.STOPPED)

    def resume(self) -> None:
        """The server starts, perhaps again."""
        self._ended = False

    def _count(self) -> int:
        """How many wait; other loops come and go on their threads meanwhile."""
        return sum(len(place.waiters) for place in list(self._places.values()))

    def _enter(self, loop: asyncio.AbstractEventLoop, record_id: bytes, waiter: asyncio.Future[WaitEnd]) -> None:
        place = self._places.setdefault((loop, record_id), _Place())
        place.waiters[waiter] = None
        if place.poll is None:
            place.poll = loop.create_task(self._poll(record_id, place))

    def _leave(self, loop: asyncio.AbstractEventLoop, record_id: bytes, waiter: asyncio.Future[WaitEnd]) -> None:
        place = self._places[loop, record_id]
        place.waiters.pop(waiter, None)
        if not place.waiters and place.poll is not None:
            place.poll.cancel()
            del self._places[loop, record_id]

    async def _poll(self, record_id: bytes, place: _Place) -> None:
        """One look for all who wait for a record, until the last of them leaves."""
        while True:
            await asyncio.sleep(place.delay_s)
            place.delay_s = min(2 * place.delay_s, POLL_MOST_S)
            try:
                found = await self._store.submit(Read(record_id))
            except StoreError as error:
                self._observer.notice(StoreFailed(Read.__name__, str(error)))
                continue
            if not in_flight(found):
                place.wake(WaitEnd.CHANGED)


async def _await(departure: Callable[[], Awaitable[None]]) -> None:
    """The departure; a connection that cannot even be listened to has been left."""
    with suppress(Exception):
        await departure()


_ALL: weakref.WeakSet[BlockingWaiting] = weakref.WeakSet()


def _after_fork() -> None:
    for waiting in list(_ALL):
        waiting.forget()


os.register_at_fork(after_in_child=_after_fork)


class _Room:
    """Where threads wait for one record. Whoever finds a look due takes it for all."""

    __slots__ = ("changes", "delay_s", "is_looking", "look_s", "waiters")

    def __init__(self) -> None:
        self.waiters = 0
        self.changes = 0
        self.is_looking = False
        self.delay_s = POLL_FIRST_S
        self.look_s = time.monotonic() + POLL_FIRST_S

    def note_change(self) -> None:
        self.changes += 1
        self.delay_s = POLL_FIRST_S
        self.look_s = time.monotonic() + POLL_FIRST_S


class BlockingWaiting:
    """The waiting requests of one door, each on a thread of its own. That a client left cannot be seen here.

    Args:
        store: of the records.
        observer: told when it cannot be read.
    """

    def __init__(self, store: Store, observer: Observer) -> None:
        self._store = store
        self._observer = observer
        self._ended = False
        self.forget()
        _ALL.add(self)

    def forget(self) -> None:
        """Begin anew, without the threads that waited, and a lock that one of them may have held in a fork."""
        self._rooms: dict[bytes, _Room] = {}
        self._change = threading.Condition()

    def wait(self, wish: Wait) -> Waited:
        """Wait on this thread until the record may have changed."""
        began_s = time.monotonic() if wish.began_s is None else wish.began_s
        deadline_s = began_s + wish.wait_ms / 1_000
        with self._change:
            if sum(room.waiters for room in self._rooms.values()) >= WAITERS_MAX:
                return Waited(WaitEnd.OVER, began_s)
            room = self._rooms.setdefault(wish.record_id, _Room())
            room.waiters += 1
        try:
            return Waited(self._wait(room, wish.record_id, deadline_s), began_s)
        finally:
            with self._change:
                room.waiters -= 1
                if not room.waiters:
                    del self._rooms[wish.record_id]

    def wake(self, record_id: bytes) -> None:
        """For an owner in this process: the record is settled."""
        if self._rooms:
            with self._change:
                if room := self._rooms.get(record_id):
                    room.note_change()
                    self._change.notify_all()

    def end(self) -> None:
        """Nobody waits any longer, nor from now on: the server stops."""
        with self._change:
            self._ended = True
            self._change.notify_all()

    def resume(self) -> None:
        """The server starts, perhaps again."""
        self._ended = False

    def _wait(self, room: _Room, record_id: bytes, deadline_s: float) -> WaitEnd:
        seen = room.changes
        while True:
            with self._change:
                now_s = time.monotonic()
                if room.changes != seen:
                    return WaitEnd.CHANGED
                if self._ended:
                    return WaitEnd.STOPPED
                if now_s >= deadline_s:
                    return WaitEnd.OVER
                if room.is_looking or now_s < room.look_s:
                    self._change.wait(min(deadline_s, now_s + POLL_MOST_S if room.is_looking else room.look_s) - now_s)
                    continue
                room.is_looking = True
            self._look(room, record_id)

    def _look(self, room: _Room, record_id: bytes) -> None:
        """Look at the record, for all who wait for it."""
        changed = False
        try:
            changed = not in_flight(self._found(record_id))
        except StoreError as error:
            self._observer.notice(StoreFailed(Read.__name__, str(error)))
        finally:
            with self._change:
                room.is_looking = False
                room.delay_s = min(2 * room.delay_s, POLL_MOST_S)
                room.look_s = time.monotonic() + room.delay_s
                if changed:
                    room.note_change()
                self._change.notify_all()

    def _found(self, record_id: bytes) -> Found | None:
        return self._store.perform(Read(record_id))
