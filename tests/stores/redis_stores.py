"""Stores on real servers, with time that a test moves.

The scripts read the time from a key beside the record, which the store for tests writes before each
transition when the manual clock has moved. Redis itself deletes by its own clock, and the times that it is
given are durations, so that nothing vanishes because a test moved on by a month.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import redis

from retrysafe.protocol.effects import Transition
from retrysafe.protocol.transitions import CountAnswers, ListAbandoned, ListRecords, ListResponses, Purge, TakeStats
from retrysafe.stores.plan import AgreeOnSecret
from retrysafe.stores.redis import RedisStore
from retrysafe.stores.redis_client import BlockingClient
from retrysafe.stores.redis_place import Kind, RedisPlace, place_of
from tests.stores.redis_proxy import Proxy, proxy
from tests.stores.redis_servers import PROGRAM, PROGRAMS, cluster, sentinels, server

MANUAL_CLOCK = "tonumber(redis.call('GET', string.match(KEYS[1], '^.-{.-}') .. 'clock'))"

ENDS = ExitStack()


@pytest.fixture(scope="session", autouse=True)
def servers_end():
    """The servers of the session end with it."""
    yield
    ENDS.close()


@cache
def folder() -> Path:
    """Where the servers of the session keep their data."""
    return Path(ENDS.enter_context(tempfile.TemporaryDirectory()))


@cache
def single(kind: str = "") -> str:
    """A server; its URL."""
    return f"redis://{ENDS.enter_context(server(folder(), program=PROGRAMS.get(kind, PROGRAM))).address}/1"


@cache
def clustered() -> str:
    """Three primaries; the URL of one."""
    return f"redis+cluster://{ENDS.enter_context(cluster(folder()))[0].address}"


@cache
def watched() -> str:
    """A primary and its sentinels; their URL."""
    _, _, watchers = ENDS.enter_context(sentinels(folder()))
    return f"redis+sentinel://{','.join(one.address for one in watchers)}/shop/1"


@cache
def network() -> Proxy:
    """What stands between a store and the server, where that is to fail."""
    return ENDS.enter_context(proxy(place_of(single()).hosts[0][1]))


@contextmanager
def away(_: Path) -> Iterator[None]:
    """Nobody reaches the server."""
    network().refuse()
    yield
    network().heal()


@contextmanager
def mute(_: Path) -> Iterator[None]:
    """The server does as it is told, and none of its answers arrives."""
    network().cut_replies_after(0)
    yield
    network().heal()


class KeptClient(BlockingClient):
    """A client that is made once a session: to get to know a cluster takes longer than most cases do."""

    def close(self) -> None:
        """It is still needed."""

    def end(self) -> None:
        """It is not needed any more."""
        super().close()


@cache
def kept_client(url: str) -> KeptClient:
    """The client of these servers."""
    client = KeptClient(place_of(url))
    ENDS.callback(client.end)
    return client


class TimedStore(RedisStore):
    """A store whose time is a test's.

    Args:
        place: the servers.
        clock: the test's, in milliseconds.
        admin: a client of the same servers and the same database.
    """

    _written: dict[tuple[str, str], int] = {}  # noqa: RUF012 - of all stores, for those that share their records
    _writing = threading.Lock()

    def __init__(self, place: RedisPlace, clock: Callable[[], int], admin: Any) -> None:
        super().__init__(place, clock=MANUAL_CLOCK)
        self._prefix = place.prefix
        self._clock = clock
        self._admin = admin

    def perform(self, transition: Transition[Any]) -> Any:
        self._tell(transition)
        return super().perform(transition)

    def submit(self, transition: Transition[Any]) -> asyncio.Future[Any]:
        asyncio.get_running_loop()
        self._tell(transition)
        return super().submit(transition)

    def _tell(self, transition: Transition[Any]) -> None:
        if isinstance(transition, AgreeOnSecret):
            return
        with self._writing:
            if isinstance(transition, Purge | ListResponses | ListRecords | ListAbandoned):
                tags = ["answers", *(tag for prefix, tag in self._written if prefix == self._prefix)]
            elif isinstance(transition, CountAnswers | TakeStats):
                tags = ["answers"]
            else:
                claim: Any = getattr(transition, "claim", transition)
                tags = [claim.record_id.hex()[:8]]
            now_ms = self._clock()
            for tag in tags:
                if self._written.get((self._prefix, tag)) != now_ms:
                    self._admin.set(f"{self._prefix}:{{{tag}}}clock", now_ms)
                    self._written[self._prefix, tag] = now_ms


@cache
def _admin(url: str) -> Any:
    place = place_of(url)
    ((host, port), *_) = place.hosts
    if url.startswith("redis+cluster"):
        client: Any = redis.RedisCluster(host=host, port=port, protocol=2)
    elif url.startswith("redis+sentinel"):
        sentinel: Any = redis.sentinel.Sentinel(place.hosts)
        client = sentinel.master_for(place.service, db=place.database)
    else:
        client = redis.Redis(host=host, port=port, db=place.database, protocol=2)
    ENDS.callback(client.close)
    return client


def failing_store(clock: Callable[[], int], records: Path, client: str = "lean") -> TimedStore:
    """A store on a manual clock, on the server behind the network that can fail."""
    url = f"redis://127.0.0.1:{network().port}/1?client={client}"
    return timed_store(url, clock, records, admin=single())


def timed_store(url: str, clock: Callable[[], int], records: Path, admin: str | None = None) -> TimedStore:
    """A store on a manual clock; the same folder means the same records. Its clock is set through `admin`."""
    prefix = f"t{hashlib.sha256(str(records).encode()).hexdigest()[:12]}"
    place = place_of(f"{url}{'&' if '?' in url else '?'}prefix={prefix}")
    store = TimedStore(place, clock, _admin(admin or url.partition("?")[0]))
    if place.kind is not Kind.SINGLE:
        store._blocking = kept_client(url)
    return store
