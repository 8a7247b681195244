"""A server that does everything right passes every case."""

from __future__ import annotations

import asyncio

import pytest

from retrysafe.lab.mutants.correct import Server
from retrysafe.lab.mutants.matrix import NOT_TRIED, results_of
from retrysafe.verify.verdict import Verdict


@pytest.fixture(scope="module")
def results():
    """What every case says of it."""
    return asyncio.run(results_of(Server))


def test_nothing_is_found(results):
    """Not one case has a finding, and none is inconclusive."""
    assert not {result.case.id: result.findings for result in results if result.findings}
    assert not {result.case.id: result.reason for result in results if result.verdict is Verdict.INCONCLUSIVE}


def test_everything_is_tried(results):
    """Every case is tried but those that are known to have no place there."""
    assert {result.case.id for result in results if result.verdict is Verdict.SKIP} == set(NOT_TRIED)
