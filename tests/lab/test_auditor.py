"""The auditor finds what is wrong, calls it by its name, and is content with what only looks like it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from retrysafe.errors import CallerError
from retrysafe.lab.auditor import audit, report
from retrysafe.lab.evidence import Call, Event, Evidence, Rules, as_line, gathered, read_lines
from retrysafe.lab.verdict import INVARIANTS
from tests.lab.histories import BAD, GOOD


@pytest.mark.parametrize(("invariant", "evidence"), [bad[::2] for bad in BAD], ids=[" ".join(bad[:2]) for bad in BAD])
def test_a_bad_history_breaks_the_invariant_that_it_was_made_for(invariant: str, evidence: Evidence):
    """Each is found, and nothing else is."""
    found = audit(evidence)
    assert {violation.invariant for violation in found} == {invariant}, found


@pytest.mark.parametrize("evidence", [good for _, good in GOOD], ids=[name for name, _ in GOOD])
def test_a_near_miss_is_no_violation(evidence: Evidence):
    """What was promised was kept."""
    assert audit(evidence) == ()


def test_every_invariant_has_a_history():
    """Fifty bad histories at least, and no invariant without one."""
    assert len(BAD) >= 50
    assert {invariant for invariant, _, _ in BAD} == set(INVARIANTS)


def test_a_violation_shows_the_events():
    """In a sentence, with the lines of evidence below it, and never the secret itself."""
    for _, _, evidence in BAD:
        for violation in audit(evidence):
            assert violation.sentence in str(violation)
            assert all(as_line(event) in str(violation) for event in violation.events)
            assert not any(secret in str(violation) for secret in evidence.rules.secrets)


@pytest.mark.parametrize("evidence", [*(bad[2] for bad in BAD), *(good for _, good in GOOD)])
def test_lines_say_the_same_as_values(evidence: Evidence):
    """Evidence that went through files is the evidence that was."""
    assert read_lines(_lines(evidence)) == evidence


def test_the_last_line_of_a_writer_that_was_killed_is_left_out():
    """Half a line is no evidence, and no fault."""
    evidence = BAD[0][2]
    half = as_line(evidence.calls[0])[:20]
    assert read_lines([*_lines(evidence), half]) == evidence


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ['{"event":"call"}\n'],
        ["nonsense\n"],
        ["[]\n"],
        ['{"event":"rules","mode":"sometimes"}\n'],
        [as_line(Rules()) + "\n", as_line(Rules(lease_ms=1)) + "\n"],
        [as_line(Rules()) + "\n", '{"event":"gossip"}\n'],
    ],
)
def test_unreadable_evidence_is_refused(lines):
    """The line is named."""
    with pytest.raises(CallerError, match="evidence"):
        read_lines(lines)


@pytest.mark.parametrize(
    ("evidence", "code", "words"),
    [
        (BAD[0][2], 1, "I1 (a key has at most one effect"),
        (GOOD[1][1], 0, "no violations"),
        (gathered(Rules(), []), 4, "nothing is shown"),
    ],
)
def test_files_in_report_out(tmp_path, evidence, code, words):
    """`python -m retrysafe.lab.auditor` reads several files as one run, and its exit code says what it found."""
    lines = _lines(evidence)
    for number in range(2):
        (tmp_path / f"{number}.jsonl").write_text("".join(lines[number::2]), "utf-8")
    command = [sys.executable, "-m", "retrysafe.lab.auditor", *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, words in done.stdout + done.stderr) == (code, True), done


def test_evidence_that_is_not_there_is_said():
    """Exit code 2, and the name of the file."""
    command = [sys.executable, "-m", "retrysafe.lab.auditor", "/nowhere/at/all"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "/nowhere/at/all" in done.stderr) == (2, True)


def test_the_report_counts_what_it_looked_at():
    """So that a clean report of nothing is seen for what it is."""
    text = report(gathered(Rules(), [Call(1, "s", "k", 0)]))
    assert text.startswith("1 calls, 0 effects")


def _lines(evidence: Evidence) -> list[str]:
    events: list[Event] = [
        *evidence.calls, *evidence.effects, *evidence.kept, *evidence.executions, *evidence.writes, *evidence.stored,
        *(evidence.rows or ()), *evidence.faults, *evidence.gauges, *evidence.texts, *evidence.replayed,
    ]  # fmt: skip
    return [as_line(evidence.rules) + "\n", *(as_line(event) + "\n" for event in events)]
