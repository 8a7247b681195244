"""The store in PostgreSQL keeps the promise of every store: directly, on any engine like it, and behind a pooler."""

from __future__ import annotations

import functools

from retrysafe.testing import store_contract
from tests.stores.postgres_server import OnManualClock, bouncer, schema_of, server


@functools.cache
def serializable():
    """A database in which every transaction is SERIALIZABLE, as they are in engines that are distributed."""
    with server().connect("postgres") as connection:
        connection.execute("CREATE DATABASE serializable")
        connection.execute("ALTER DATABASE serializable SET default_transaction_isolation = 'serializable'")
    return server().url("serializable")


def direct(clock, folder):
    return OnManualClock(server().url(), clock, schema_of(folder))


def portable(clock, folder):
    return OnManualClock(serializable(), clock, schema_of(folder), portable=True)


def pooled(clock, folder):
    return OnManualClock(server().url(port=bouncer().port), clock, schema_of(folder), clocks_url=server().url())


TestPostgres = store_contract(direct)
TestPortable = store_contract(portable)
TestPooled = store_contract(pooled)
