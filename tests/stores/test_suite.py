"""The suite for stores is tested as well: by stores that are wrong, each in one way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from retrysafe.testing.machine import StoreMachine
from tests.stores import mutants

MUTANTS = Path(__file__).with_name("mutants.py")

# What a sequence of transitions cannot show: it has small responses, looks
# at one record at a time, purges to the end, and opens each store once.
BEYOND_THE_MACHINE = {
    mutants.CutsResponses,
    mutants.PurgesEverythingAtOnce,
    mutants.PurgesWhatIsInProgress,
    mutants.FollowsTheClock,
    mutants.MakesNewSecrets,
    mutants.TakesAnySecret,
    mutants.StaysOpen,
    mutants.ReplacesWhateverIsThere,
    mutants.SkipsAPage,
    mutants.CountsOnlyTheLast,
    mutants.RemembersEveryDay,
    mutants.ForgetsTheRoute,
}


def test_every_mutant_is_caught_by_its_case(tmp_path):
    """The case that is there for a fault fails on the store that has it; the store without a fault passes each."""
    report = tmp_path / "report.xml"
    nodes = [f"{MUTANTS}::Test{mutant.__name__}::{case}" for mutant, case in mutants.CAUGHT_BY.items()]
    nodes += [f"{MUTANTS}::TestMutant::{case}" for case in set(mutants.CAUGHT_BY.values())]
    options = ["-q", "--tb=no", "-p", "no:cacheprovider", f"--junitxml={report}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *nodes],
        capture_output=True,
        text=True,
        check=False,
        cwd=MUTANTS.parents[2],
    )
    assert done.returncode == 1, done.stdout + done.stderr
    failed = {
        case.attrib["classname"].rpartition(".Test")[2]
        for case in ET.parse(report).iter("testcase")
        if case.find("failure") is not None
    }
    assert failed == {mutant.__name__ for mutant in mutants.CAUGHT_BY}, done.stdout


@pytest.mark.parametrize("mutant", [mutant for mutant in mutants.CAUGHT_BY if mutant not in BEYOND_THE_MACHINE])
def test_every_mutant_is_caught_by_the_machine(mutant):
    """A random sequence of transitions shows the fault, without anybody having thought of it."""
    machine = type("Machine", (StoreMachine,), {"makes": (lambda clock, folder: mutant(clock),)})
    quick = settings(max_examples=300, phases=[Phase.generate], database=None, derandomize=True, deadline=None)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=quick)
