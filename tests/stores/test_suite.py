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

# What a sequence of transitions can show. It has durations and bytes of one kind, purges to the end, opens each
# store once, and does one thing at a time.
SHOWN_BY_SEQUENCES = [
    mutants.IgnoresTokens,
    mutants.IgnoresStates,
    mutants.LapsesEarly,
    mutants.LapsesLate,
    mutants.ExpiresEarly,
    mutants.ForgetsEarly,
    mutants.PunishesLateOwners,
    mutants.LifetimeFromClaim,
    mutants.CountsNoAttempts,
    mutants.KeepsTheOldToken,
    mutants.ForgetsRenewals,
    mutants.KeepsExpiredResponses,
    mutants.ClaimExtendsTheLease,
    mutants.ClaimOverwrites,
    mutants.NeverHasMore,
    mutants.SettlesWhatIsUnknown,
    mutants.KeepsTheJournal,
    mutants.ForgetsTheRequest,
    mutants.DropsTheJournal,
    mutants.AppendsToTheJournal,
    mutants.SortsTheHistory,
    mutants.HistoryGoesWithTheRecord,
    mutants.HistoryOnlyOfRecords,
    mutants.ShowsWhatIsOver,
    mutants.ListsEveryState,
    mutants.SkipsARecord,
    mutants.AbandonedBeforeItsTime,
    mutants.ErasesWhateverIsThere,
    mutants.RulesOutWhatIsInProgress,
    mutants.RevokesOnlyLapsed,
]


def test_every_mutant_is_caught_by_its_cases(tmp_path):
    """The cases that are there for a fault fail on the store that has it; the stores without a fault pass each."""
    report = tmp_path / "report.xml"
    pairs = {(mutant.__name__, case) for mutant, cases in mutants.CAUGHT_BY.items() for case in cases}
    nodes = [f"{MUTANTS}::Test{mutant}::{case}" for mutant, case in sorted(pairs)]
    nodes += [f"{MUTANTS}::TestFailing::{case}" for case in sorted({case for _, case in pairs})]
    nodes += [f"{MUTANTS}::TestMutant::{case}" for case in sorted({case for mutant, case in pairs if _alone(mutant)})]
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
        (case.attrib["classname"].rpartition(".Test")[2], case.attrib["name"].partition("[")[0])
        for case in ET.parse(report).iter("testcase")
        if case.find("failure") is not None
    }
    assert failed == pairs, done.stdout


def _alone(mutant: str) -> bool:
    """Is it a store whose objects share nothing?"""
    return not issubclass(getattr(mutants, mutant), mutants.Shared)


@pytest.mark.parametrize("mutant", SHOWN_BY_SEQUENCES)
def test_mutant_is_caught_by_the_machine(mutant):
    """A random sequence of transitions shows the fault, without anybody having thought of it."""
    machine = type("Machine", (StoreMachine,), {"makes": (lambda clock, folder: mutant(clock),)})
    quick = settings(max_examples=600, phases=[Phase.generate], database=None, derandomize=True, deadline=None)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=quick)
