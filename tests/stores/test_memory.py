"""The store in memory keeps the promise of every store."""

from __future__ import annotations

from retrysafe.stores.memory import MemoryStore
from retrysafe.testing import store_contract

TestMemory = store_contract(lambda clock, folder: MemoryStore(clock), durable=False)
