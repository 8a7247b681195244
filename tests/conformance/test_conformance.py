"""`make conformance` judges a door of ours and a server with a defect; its page says what its record does."""

from __future__ import annotations

import json

import pytest

from conformance.catalogue import ABSENT, EVERY, OWN, PACKAGES, Subject
from conformance.judge import judge
from conformance.page import DRAFT_SAYS, PAGE, RECORD, page, source_of
from retrysafe.verify.cases import CATALOGUE

CASES = ("REP-01", "FPR-01", "FPR-02", "CON-02", "SEC-01")


@pytest.fixture(scope="module")
def record():
    """What was written."""
    return json.loads(RECORD.read_text("utf-8"))


def test_a_door_of_ours_is_judged(tmp_path):
    """Served as every package is, by the same command, with the same shop."""
    kept = judge(OWN[0], tmp_path, CASES)
    assert kept["cases"] == dict.fromkeys(CASES, "pass"), kept
    assert kept["findings"] == {}


def test_a_defect_is_found(tmp_path):
    """By the cases that are about it; what was expected and seen is kept."""
    mutant = Subject(name="a mutant", kind="mutant", application="ReuseRuns")
    kept = judge(mutant, tmp_path, ("REP-01", "FPR-01"))
    assert kept["cases"]["REP-01"] == "pass", kept
    assert kept["findings"]["FPR-01"][0] == "422"


def test_what_does_not_answer_is_a_row_that_says_so(tmp_path):
    """It is neither a pass nor a crash of the harness."""
    kept = judge(Subject(name="broken", kind="asgi", application="conformance.apps.nothing:app"), tmp_path)
    assert "it did not answer" in kept["absent"]
    assert "cases" not in kept


def test_the_page_is_what_the_record_says(record):
    """Nobody has edited the one without the other."""
    assert PAGE.read_text("utf-8") == page(record)


def test_every_subject_has_its_row(record):
    """Each was judged, or is said not to be in the registry; our own doors have no finding."""
    kept = {each["name"]: each for each in record["subjects"]}
    assert list(kept) == [subject.name for subject in EVERY]
    assert all("cases" in kept[subject.name] for subject in (*OWN, *PACKAGES))
    assert all("absent" in kept[subject.name] for subject in ABSENT)
    assert all(not kept[subject.name]["findings"] for subject in OWN)
    for subject in PACKAGES:
        assert subject.promises
        assert subject.wired
        assert kept[subject.name]["version"] == subject.version


def test_rules_are_told_apart():
    """A rule of the draft is not ours, and the other way round."""
    sources = {case.id: source_of(case) for case in CATALOGUE}
    assert (sources["REP-01"], sources["SYN-08"], sources["SEC-05"]) == ("draft", "standard", "contract")
    assert set(DRAFT_SAYS) == {id_ for id_, source in sources.items() if source == "draft"}
