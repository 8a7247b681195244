"""The store in a SQLite file keeps the promise of every store."""

from __future__ import annotations

from retrysafe.stores.sqlite import SqliteStore
from retrysafe.testing import store_contract

TestSqlite = store_contract(lambda clock, folder: SqliteStore(folder / "records.db", clock=clock))
