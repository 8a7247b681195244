"""The promise of `stores.contract` as a suite: every case, in both colours, for any store.

One line in a test module runs it:

    TestMyStore = store_contract(lambda clock, folder: MyStore(folder / "records", clock=clock))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from retrysafe.testing.cases_doubt import EngineErrors, LostReplies, MakeFailing
from retrysafe.testing.cases_edges import Edges
from retrysafe.testing.cases_extras import Extras, History
from retrysafe.testing.cases_lists import Abandoned, Lists
from retrysafe.testing.cases_many import Answers, Census, Responses
from retrysafe.testing.cases_moves import Claims, Settlements, TheTable
from retrysafe.testing.cases_races import Races, TwoConnections
from retrysafe.testing.cases_store import Durable, TheObject, TheSecret
from retrysafe.testing.cases_time import ClockSteps, Leases, Retention
from retrysafe.testing.subject import COLOURS, Cases, MakeStore, subject_in

EVERY = (
    TheTable,
    Claims,
    Settlements,
    Edges,
    Leases,
    ClockSteps,
    Retention,
    Races,
    LostReplies,
    Extras,
    History,
    TheSecret,
    TheObject,
    Responses,
    Answers,
    Census,
    Lists,
    Abandoned,
)


def store_contract(
    make: MakeStore,
    *,
    durable: bool = True,
    failing: MakeFailing | None = None,
    colours: Sequence[str] = tuple(COLOURS),
) -> type[Cases]:
    """The suite for one kind of store, to be given a name that starts with `Test`.

    Args:
        make: makes a store from a clock and a folder that is its own.
        durable: the records outlive the store object, and are there for every other on the same folder.
        failing: makes the engine under the stores of a folder fail until its context ends, so that the suite
            can show what a store says and does meanwhile; None for a store whose engine cannot fail.
        colours: `"blocking"`, `"asyncio"`, or both: in which to use the store; one that is published passes in both.
    """
    cases: tuple[type[Cases], ...] = EVERY
    members: dict[str, Any] = {"make": staticmethod(make), "subject": subject_in(colours)}
    if durable:
        cases += (Durable, TwoConnections)
    if failing is not None:
        cases += (EngineErrors,)
        members["failing"] = staticmethod(failing)
    return type("StoreContract", cases, members)
