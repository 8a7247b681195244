"""Any sequence of transitions ends as the table says, in every store, and the stores agree on every byte."""

from __future__ import annotations

from hypothesis import settings

from retrysafe.stores.memory import MemoryStore
from retrysafe.stores.sqlite import SqliteStore
from retrysafe.testing.machine import store_machine
from tests.stores.mariadb import ManualMysqlStore
from tests.stores.postgres_server import OnManualClock, schema_of, server


def memory(clock, folder):
    return MemoryStore(clock)


def sqlite(clock, folder):
    return SqliteStore(folder / "records.db", clock=clock)


def postgres(clock, folder):
    return OnManualClock(server().url(), clock, schema_of(folder))


TestMemoryAgainstTheTable = store_machine(memory)
TestSqliteAgainstMemory = store_machine(memory, sqlite)
TestSqliteAgainstMemory.settings = settings(max_examples=settings().max_examples // 3)  # each opens a file
TestMysqlAgainstMemory = store_machine(memory, ManualMysqlStore)
TestMysqlAgainstMemory.settings = settings(max_examples=settings().max_examples // 4)  # each makes a database
TestPostgresAgainstMemory = store_machine(memory, postgres)
TestPostgresAgainstMemory.settings = settings(max_examples=settings().max_examples // 5)  # each makes a schema
