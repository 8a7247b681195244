"""What the tests that kill processes share: the application of `shop` in a process of its own, and its records."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retrysafe.demo.processes import await_ready, free_port
from retrysafe.model import State
from retrysafe.protocol.transitions import ListRecords
from retrysafe.stores.location import open_store
from tests.doors.servers import Shop, command
from tests.forked import child
from tests.operation.downstream import Downstream


@contextmanager
def serving(place: Path, other_side: Downstream, **environment: str) -> Iterator[Shop]:
    """The application, in a process of its own."""
    port = free_port()
    variables = {"SHOP_PLACE": str(place), "DOWNSTREAM": str(other_side.port), **environment}
    with child(
        uuid.uuid4().hex, command("uvicorn", port, "tests.operation.shop:application"), port, place, variables
    ) as process:
        await_ready(process, "/ready")
        yield Shop(process, place)


def states(place: Path) -> list[State]:
    """The states of all records."""
    store = open_store(f"sqlite:///{place / 'records.db'}")
    try:
        store.open()
        return [listed.record.state for listed in store.perform(ListRecords(tuple(State))).records]
    finally:
        store.close()


def die(
    place: Path, other_side: Downstream, *, target: str, moment: str, name: str, store: str = "", **request: str
) -> None:
    """Send a request, in the middle of which the process dies."""
    with serving(place, other_side, SHOP_STORE=store) as shop:
        shop.shut(f"armed-{moment}")
        lost = shop.ask(target, key=name, name=name, **request)
        assert (lost.status, lost.whole) == (0, False)
        assert shop.process.process.wait(10) == -9
