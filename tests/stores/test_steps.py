"""The schema as steps: their order, and which release may run on what."""

from __future__ import annotations

import pytest

from retrysafe.stores.steps import Step, due, needed, steps_of

FIRST, ADDS, DROPS, ADDS_MORE = (
    Step(1, "records", ""),
    Step(2, "adds", ""),
    Step(3, "drops", "", after=True),
    Step(4, "adds_more", ""),
)


def test_steps_are_in_order():
    """They are numbered without a gap, each says when it is to be gone through, and the first makes the tables."""
    steps = steps_of("sqlite")
    assert [step.number for step in steps] == list(range(1, len(steps) + 1))
    assert str(steps[0]) == "0001 before the deployment: records"
    assert "CREATE TABLE records" in steps[0].script


@pytest.mark.parametrize(("steps", "last"), [
    ((), 0),
    ((FIRST,), 1),
    ((FIRST, ADDS, DROPS), 2),
    ((FIRST, ADDS, DROPS, ADDS_MORE), 4),
])  # fmt: skip
def test_opening_goes_to_the_last_step_before(steps, last):
    """What is after the last deployment waits; what is after the one before that is taken along."""
    assert due(steps) == last


@pytest.mark.parametrize(("gone", "must_know"), [(0, 0), (1, 1), (2, 1), (3, 3), (4, 3)])
def test_last_release_runs_until_the_step_after(gone, must_know):
    """A step that only adds need not be known; one that takes away must be."""
    assert needed((FIRST, ADDS, DROPS, ADDS_MORE), gone) == must_know
