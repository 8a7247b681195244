"""What recovery does leaves the same trace in the history of a record as what people do."""

from __future__ import annotations

from typing import Any

import pytest

from retrysafe import Policy
from retrysafe.model import State
from retrysafe.operation.recovery import RECONCILER
from retrysafe.protocol import history
from retrysafe.protocol.history import Action, Attempt, End, Intervention
from retrysafe.protocol.transitions import CompleteIfUnknown, ReadDetails, ReleaseIfUnknown
from retrysafe.recovery import Completed, NotDone, StillUnknown
from tests.drive.harness import in_loop
from tests.operation.abandoned import Case

MANUAL = Policy()


def past(case):
    """The history of the one record."""
    (record_id,) = case.records()
    return history.read(case.store.inner.perform(ReadDetails(record_id)).history)


@in_loop
async def test_an_attempt_that_was_resumed_is_remembered():
    """The completer takes the claim over: the attempt before it is in the history, as after a client's retry."""
    case = Case()
    case.abandon()
    ((_, abandoned),) = case.records().items()
    await case.recover()
    assert past(case) == (history.attempt_of(abandoned, End.LAPSED),)
    assert isinstance(past(case)[0], Attempt)


@in_loop
@pytest.mark.parametrize(
    ("answer", "action"), [(Completed(), Action.COMPLETED), (NotDone(), Action.NOT_DONE), (StillUnknown(), None)]
)
async def test_what_the_application_knew_is_written_down(answer, action):
    """By whom, and what; nothing if it did not know."""
    case = Case(policy=MANUAL, reconcile=lambda _: answer)
    case.abandon(policy=MANUAL)
    await case.recover()
    seen = [(entry.action, entry.actor, entry.state) for entry in past(case) if isinstance(entry, Intervention)]
    assert seen == ([] if action is None else [(action, RECONCILER, State.UNKNOWN)])
    assert not any(history.is_withdrawn(entry, past(case)) for entry in past(case) if isinstance(entry, Intervention))


@in_loop
@pytest.mark.parametrize(("answer", "settling"), [(Completed(), CompleteIfUnknown), (NotDone(), ReleaseIfUnknown)])
async def test_what_came_too_late_is_said(answer, settling):
    """Somebody settled it in that moment: the history says that the reconciler had no effect."""
    case = Case(policy=MANUAL, reconcile=lambda _: answer)
    case.abandon(policy=MANUAL)
    (record_id,) = case.records()

    def settle(transition: Any) -> None:
        if isinstance(transition, settling):
            case.store.before = None
            case.store.inner.perform(CompleteIfUnknown(record_id, transition.seen_token, b"theirs", 1_000, 1_000))

    case.store.before = settle
    await case.recover()
    (entry, _) = past(case)
    assert isinstance(entry, Intervention)
    assert history.is_withdrawn(entry, past(case))
