"""`kill -9` around every write and every call of an operation with steps: how many effects there are, exactly."""

from __future__ import annotations

import json
import uuid

import pytest

from retrysafe.model import State
from tests.doors.servers import until
from tests.operation.killed import die, serving, states
from tests.stores.postgres_server import schema_of, server

MOMENTS = {  # to how often the charge was made by then
    "before-journal-1": 0, "after-journal-1": 0, "before-journal-2": 0, "after-journal-2": 0,
    "before-journal-3": 0, "after-journal-3": 0, "called": 1, "before-journal-4": 1, "after-journal-4": 1,
    "before-record": 1,
}  # fmt: skip
OPEN = ("after-journal-3", "called", "before-journal-4")  # the intent of the charge stands, and no result


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


@pytest.mark.parametrize("moment", OPEN)
def test_the_process_dies_beside_postgresql(tmp_path, other_side, moment):
    """The journal is in a server that lives on: one effect of each step."""
    name, target = uuid.uuid4().hex, "POST /resend/dedup"
    store = f"{server().url()}?schema={schema_of(tmp_path)}"
    die(tmp_path, other_side, target=target, moment=moment, name=name, store=store)
    with serving(tmp_path, other_side, SHOP_STORE=store) as shop:
        answers = [shop.settled(target, key=name, name=name), shop.ask(target, key=name, name=name)]
    assert [(answer.status, answer.replayed) for answer in answers] == [(201, False), (201, True)]
    assert [len(other_side.effects(what)) for what in ("reserve", "charge")] == [1, 1]


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
