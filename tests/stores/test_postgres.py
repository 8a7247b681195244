"""The store in PostgreSQL keeps the promise of every store: directly, on any engine like it, and behind a pooler."""

from __future__ import annotations

import functools

from retrysafe.testing.cases_doubt import EngineErrors
from tests.stores.cutting_proxy import CuttingProxy
from tests.stores.postgres_server import OnManualClock, bouncer, schema_of, server
from tests.stores.ways import further, main


@functools.cache
def serializable():
    """A database in which every transaction is SERIALIZABLE, as they are in engines that are distributed."""
    with server().connect("postgres") as connection:
        connection.execute("CREATE DATABASE serializable")
        connection.execute("ALTER DATABASE serializable SET default_transaction_isolation = 'serializable'")
    return server().url("serializable")


@functools.cache
def proxy():
    return CuttingProxy(server().port)


def direct(clock, folder):
    return OnManualClock(server().url(), clock, schema_of(folder))


def portable(clock, folder):
    return OnManualClock(serializable(), clock, schema_of(folder), portable=True)


def pooled(clock, folder):
    return OnManualClock(server().url(port=bouncer().port), clock, schema_of(folder), clocks_url=server().url())


def through_a_proxy(clock, folder):
    return OnManualClock(server().url(port=proxy().port), clock, schema_of(folder), clocks_url=server().url())


TestPostgres = main(direct)
TestPortable = further(portable, "blocking")
TestPooled = further(pooled, "asyncio")


class TestPostgresThatIsNotHeard(EngineErrors):
    """What is asked arrives and is done, and no answer comes back: of a record, and of a new connection."""

    make = staticmethod(through_a_proxy)
    failing = staticmethod(lambda _: proxy().mute())
