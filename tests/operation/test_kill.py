"""`kill -9` around every write and every call of an operation with steps: how many effects there are, exactly."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from retrysafe.demo.processes import await_ready, child, free_port
from retrysafe.model import State
from retrysafe.protocol.effects import ListRecords
from retrysafe.stores.location import open_store
from tests.doors.servers import Shop, command, until
from tests.operation.downstream import Downstream, downstream

MOMENTS = {  # to how often the charge was made by then
    "before-journal-1": 0, "after-journal-1": 0, "before-journal-2": 0, "after-journal-2": 0,
    "before-journal-3": 0, "after-journal-3": 0, "called": 1, "before-journal-4": 1, "after-journal-4": 1,
    "before-record": 1,
}  # fmt: skip
OPEN = ("after-journal-3", "called", "before-journal-4")  # the intent of the charge stands, and no result


@pytest.fixture
def other_side(tmp_path) -> Iterator[Downstream]:
    """The service that the steps call."""
    with downstream(tmp_path) as service:
        yield service


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


def die(place: Path, other_side: Downstream, *, target: str, moment: str, name: str, **request: str) -> None:
    """Send a request, in the middle of which the process dies."""
    with serving(place, other_side) as shop:
        shop.shut(f"armed-{moment}")
        lost = shop.ask(target, key=name, name=name, **request)
        assert (lost.status, lost.whole) == (0, False)
        assert shop.process.process.wait(10) == -9


CASES = [
    *(("resend", "dedup", moment, 1) for moment in MOMENTS),
    *(("resend", "plain", moment, effects) for moment, effects in zip(OPEN, (1, 2, 2), strict=True)),
    *(("unknown", "plain", moment, effects) for moment, effects in zip(OPEN, (0, 1, 1), strict=True)),
    *(("late", "dedup", moment, effects) for moment, effects in zip(OPEN, (0, 1, 1), strict=True)),
    *(("verify", "plain", moment, 1) for moment in OPEN),
    *((policy, "plain", "after-journal-4", 1) for policy in ("unknown", "late", "verify")),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(map(str, case)))
def test_the_process_dies(tmp_path, other_side, case):
    """At each moment in turn; then a new process, and retries past the lease."""
    policy, dedup, moment, effects = case
    name, target = uuid.uuid4().hex, f"POST /{policy}/{dedup}"
    die(tmp_path, other_side, target=target, moment=moment, name=name)
    assert len(other_side.effects("charge")) == MOMENTS[moment]
    with serving(tmp_path, other_side) as shop:
        answers = [shop.settled(target, key=name, name=name), shop.ask(target, key=name, name=name)]
    if moment in OPEN and policy in ("unknown", "late"):
        assert (answers[0].status, answers[1].code) == (500, "outcome-unknown")  # the framework's 500: it raised
    else:
        assert [(answer.status, answer.replayed) for answer in answers] == [(201, False), (201, True)]
        assert answers[0].body == answers[1].body
    keys = other_side.effects("charge")
    assert len(keys) == effects
    assert len(set(keys)) <= 1
    assert len(other_side.effects("reserve")) == 1


@pytest.mark.parametrize("moment", ["after-journal-2", "called"])
def test_nobody_retries(tmp_path, other_side, moment):
    """The completer goes on where the process died, in the name of the account; a later retry gets the answer."""
    name, target = uuid.uuid4().hex, "POST /resend/dedup"
    die(tmp_path, other_side, target=target, moment=moment, name=name)
    die(tmp_path, other_side, target=target, moment="called", name="other", account="gone")
    with serving(tmp_path, other_side, SHOP_RECOVERS="100ms") as shop:
        until(lambda: State.COMPLETED in states(tmp_path))
        retry = shop.settled(target, key=name, name=name)
        assert (retry.status, retry.replayed) == (201, True)
        assert json.loads(retry.body)["by"] == "completer"
    assert len(other_side.effects("charge")) == 2  # of two operations
    assert sorted(states(tmp_path)) == [State.COMPLETED, State.IN_PROGRESS]  # the account of the other is gone


@pytest.mark.parametrize(("moment", "settled"), [("called", "replays"), ("after-journal-3", "runs")])
def test_the_application_is_asked(tmp_path, other_side, moment, settled):
    """The outcome is unknown until the reconciler has looked: then retries are answered, or run."""
    name, target = uuid.uuid4().hex, "POST /unknown/plain"
    die(tmp_path, other_side, target=target, moment=moment, name=name)
    with serving(tmp_path, other_side) as shop:
        assert shop.settled(target, key=name, name=name).status == 500
        assert shop.ask(target, key=name, name=name).code == "outcome-unknown"
    with serving(tmp_path, other_side, SHOP_RECOVERS="100ms") as shop:
        until(lambda: shop.ask(target, key=name, name=name).replayed)
        retry = shop.ask(target, key=name, name=name)
        assert retry.status == 201
        assert ("reconciled" in json.loads(retry.body)) == (settled == "replays")
    assert len(other_side.effects("charge")) == 1
