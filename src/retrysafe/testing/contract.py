"""The promise of `stores.contract` as a suite: every case, in both colours, for any store.

One line in a test module runs it:

    TestMyStore = store_contract(lambda clock, folder: MyStore(folder / "records", clock=clock))
"""

from __future__ import annotations

from retrysafe.testing.cases_many import Answers, Census, Responses
from retrysafe.testing.cases_moves import Claims, Settlements, TheTable
from retrysafe.testing.cases_store import Durable, Races, TheObject, TheSecret
from retrysafe.testing.cases_time import Leases, Retention
from retrysafe.testing.subject import Cases, MakeStore


def store_contract(make: MakeStore, *, durable: bool = True) -> type[Cases]:
    """The suite for one kind of store, to be given a name that starts with `Test`.

    Args:
        make: makes a store from a clock and a folder that is its own.
        durable: the records outlive the store object, and are there for the next on the same folder.
    """
    cases: tuple[type[Cases], ...] = (
        TheTable, Claims, Settlements, Leases, Retention, Races, TheSecret, TheObject, Responses, Answers, Census,
    )  # fmt: skip
    if durable:
        cases += (Durable,)
    return type("StoreContract", cases, {"make": staticmethod(make)})
