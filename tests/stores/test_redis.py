"""The store in Redis and Valkey keeps the promise of every store, whichever way it talks to the servers."""

from __future__ import annotations

from retrysafe.testing.cases_doubt import EngineErrors
from tests.stores import redis_stores
from tests.stores.redis_servers import PROGRAMS
from tests.stores.redis_stores import away, clustered, failing_store, mute, single, timed_store, watched
from tests.stores.ways import further, main

servers_end = redis_stores.servers_end

TestLeanConnection = main(failing_store, failing=away)
TestRedisPy = further(lambda clock, folder: timed_store(f"{single()}?client=redis-py", clock, folder), "asyncio")
TestSentinels = further(lambda clock, folder: timed_store(watched(), clock, folder), "blocking")
TestCluster = further(lambda clock, folder: timed_store(clustered(), clock, folder), "asyncio")
TestTheOtherServer = further(lambda clock, folder: timed_store(single([*PROGRAMS][-1]), clock, folder), "asyncio")


class TestLostAnswers(EngineErrors):
    """What is in doubt was applied."""

    make = staticmethod(failing_store)
    failing = staticmethod(mute)


class TestRedisPyFails(EngineErrors):
    """The other client of an event loop."""

    make = staticmethod(lambda clock, folder: failing_store(clock, folder, "redis-py"))
    failing = staticmethod(away)


class TestRedisPyLosesAnswers(EngineErrors):
    """The other client, and what is in doubt."""

    make = staticmethod(lambda clock, folder: failing_store(clock, folder, "redis-py"))
    failing = staticmethod(mute)
