"""The store in Redis and Valkey keeps the promise of every store, whichever way it talks to the servers."""

from __future__ import annotations

from retrysafe.testing import store_contract
from tests.stores import redis_stores
from tests.stores.redis_servers import PROGRAMS
from tests.stores.redis_stores import clustered, single, timed_store, watched

servers_end = redis_stores.servers_end

TestLeanConnection = store_contract(lambda clock, folder: timed_store(single(), clock, folder))
TestRedisPy = store_contract(lambda clock, folder: timed_store(f"{single()}?client=redis-py", clock, folder))
TestSentinels = store_contract(lambda clock, folder: timed_store(watched(), clock, folder))
TestCluster = store_contract(lambda clock, folder: timed_store(clustered(), clock, folder))
TestTheOtherServer = store_contract(lambda clock, folder: timed_store(single([*PROGRAMS][-1]), clock, folder))
