"""The store in a Redis or a Valkey: for several hosts, where speed matters more than surviving every failover.

One Lua script for each transition, one round trip; the server's clock. An event loop talks to a single
server over one lean connection (`redis_wire`); threads, sentinels and clusters go through redis-py
(`redis_client`). Redis may forget what it acknowledged: docs/guarantees.md says when.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TypeVar

from retrysafe.errors import StoreUnavailable
from retrysafe.protocol.effects import Transition
from retrysafe.stores.contract import Pending
from retrysafe.stores.plan import AgreeOnSecret
from retrysafe.stores.redis_client import AsyncClient, BlockingClient
from retrysafe.stores.redis_place import Client, Kind, RedisPlace, place_of
from retrysafe.stores.redis_plan import SLOTS, Layout, ToldBySlot, held, plan_of
from retrysafe.stores.redis_scripts import SERVER_CLOCK, Scripts
from retrysafe.stores.redis_wire import Lane
from retrysafe.stores.url import StoreUrl

T = TypeVar("T")


class RedisStore:
    """Records in a Redis or a Valkey.

    Args:
        place: the servers, and how to use them; `redis_place.place_of` reads it from a URL.
        clock: an expression in Lua for the time in milliseconds; `KEYS[1]` is the record that is asked about.
    """

    def __init__(self, place: RedisPlace, *, clock: str = SERVER_CLOCK) -> None:
        self._place = place
        told = ToldBySlot(SLOTS if place.kind is Kind.CLUSTER else 1)
        self._layout = Layout(place.prefix, Scripts(clock), place.replicas, place.wait_ms, told)
        self._lock = threading.Lock()
        self._blocking = BlockingClient(place)
        self._loops: dict[asyncio.AbstractEventLoop, Lane | AsyncClient] = {}
        self._closed = False

    @property
    def name(self) -> str:
        """`redis` and where it is."""
        return self._place.name

    def open(self, secret: bytes | None = None) -> bytes:
        """Look whether the servers may hold records, and agree on the secret; after `close`, open it again."""
        with self._lock:
            self._closed = False
        self._blocking.check()
        return self.perform(AgreeOnSecret(secret))

    def is_in_use(self) -> bool:
        """Whether there is a secret: some application has opened the store before."""
        return self._blocking.run(held(self._layout))

    def perform(self, transition: Transition[T]) -> T:
        """Do one transition on this thread."""
        if self._closed:
            raise self._is_closed()
        answer: T = self._blocking.run(plan_of(transition, self._layout))
        return answer

    def submit(self, transition: Transition[T]) -> asyncio.Future[T]:
        """Begin one transition; the future is done when the server has answered."""
        loop = asyncio.get_running_loop()
        future: Pending[T] = Pending(loop=loop)
        if self._closed:
            future.set_exception(self._is_closed())
        else:
            client = self._loops.get(loop) or self._of(loop)
            client.run(plan_of(transition, self._layout), future)
        return future

    def close(self) -> None:
        """Refuse what comes, finish what was begun, and let go of every connection."""
        with self._lock:
            self._closed = True
            loops, self._loops = self._loops, {}
        self._blocking.close()
        for loop, client in loops.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(client.close)

    def _of(self, loop: asyncio.AbstractEventLoop) -> Lane | AsyncClient:
        """What the loop talks to the servers with, from its first transition to its end."""
        lean = self._place.client is Client.LEAN
        client = Lane(self._place) if lean else AsyncClient(self._place)
        with self._lock:
            self._loops = {old: its for old, its in self._loops.items() if not old.is_closed()} | {loop: client}
        return client

    def _is_closed(self) -> StoreUnavailable:
        return StoreUnavailable(f"{self.name} is closed; open it before it is used")


def store_of(url: StoreUrl) -> RedisStore:
    """The store that a URL names; `redis_place.place_of` has its rules."""
    return RedisStore(place_of(url.text))
