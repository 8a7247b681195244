"""The simulator is tested by what it must find: every planted bug, within ten thousand schedules."""

from __future__ import annotations

import statistics

import pytest

from retrysafe.lab.simulate.__main__ import main
from retrysafe.lab.simulate.bugs.catalogue import BUGS, SCHEDULES_MAX, find
from retrysafe.lab.simulate.explore import INTERRUPTIONS, every_interruption, run_seed


@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_a_planted_bug_is_found(bug):
    """A simulator that misses it would miss it in the product too."""
    _, run = find(bug)
    assert run is not None, f"{bug.name} was not found in {SCHEDULES_MAX} schedules"


def test_the_bugs_are_many_and_most_are_found_at_once(capsys):
    """Thirty at least, of different names; half of them within a thousand schedules. The command says the same."""
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 30
    counts = [find(bug)[0] for bug in BUGS]
    assert statistics.median(counts) <= 1_000
    assert main(["--bugs"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [int(line.split()[1]) for line in said[:-1]] == counts
    assert f"median {statistics.median(counts):g}, most {max(counts)}" in said[-1]


@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_it_is_the_bug_that_is_found(bug):
    """The very schedule that shows it is clean without it."""
    count, _ = find(bug)
    assert not run_seed(count - 1, bug.mode).violations


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("check-then-act", None),
        ("zombie-answer", "pause"),
        ("early-done", "store-away"),
        ("runs-in-doubt", "store-away"),
    ],
)
def test_duels_find_what_takes_two(name, what):
    """Every schedule of two workers and one key, with at most one delay, and a fault at every step."""
    bug = next(bug for bug in BUGS if bug.name == name)
    runs = every_interruption(bug.mode, INTERRUPTIONS.get(what or ""), 1, bug.parts)
    assert any(run.violations for _, run in runs)
