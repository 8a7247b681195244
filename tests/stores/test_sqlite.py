"""The store in a SQLite file keeps the promise of every store."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager

from retrysafe.stores.sqlite import SqliteStore
from retrysafe.testing import store_contract
from retrysafe.testing.cases_doubt import EngineErrors

TestSqlite = store_contract(lambda clock, folder: SqliteStore(folder / "records.db", clock=clock))


@contextmanager
def busy(folder):
    """Somebody else has begun to write and does not end."""
    with closing(sqlite3.connect(folder / "records.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


class TestSqliteThatIsBusy(EngineErrors):
    """The one failure of the engine that can be made at will, and unmade."""

    make = staticmethod(lambda clock, folder: SqliteStore(folder / "records.db", clock=clock, busy_ms=0))
    failing = staticmethod(busy)
