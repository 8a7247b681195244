"""`make prove` goes through its proofs, says how far it is, and stops at what it finds."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from prove import report
from prove.programme import PROOFS, Done
from prove.report import Proved
from prove.show import spoken
from tests.gateway.processes import environment

ROOT = Path(__file__).parents[2]


def python(*words):
    """A Python of this environment, in the project."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=environment(PYTHONPATH="src"),
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_rehearsal_from_end_to_end():
    """Two proofs at a tiny scale: both are counted in the report, and how far they are is said in plain lines."""
    done = python("-m", "prove", "--only", "kill-sqlite", "properties", "--scale", "0.0004", "--seed", "7")
    assert done.returncode == 0, done.stderr
    assert "Seed 7, at a scale of 0.0004: a rehearsal, and no proof;" in done.stdout
    assert re.search(r"\| `kill-sqlite` \|.*\| [1-9]\d* kills \([1-9]\d* at [1-9]\d* points.*\| 0 \|", done.stdout)
    assert re.search(r"\| `properties` \|.*\| 2 examples of each \(\d+ passed in .*\| 0 \|", done.stdout)
    assert re.search(r"Versions: retrysafe \S+, Python \S+, SQLite \S+\.", done.stdout)
    assert "kill-sqlite: 4 to do\n" in done.stderr


def test_a_violation_ends_it():
    """What comes after the first is not begun; the command that is shown shows it again."""
    only = ["--only", "kill-sqlite", "properties", "--modes", "broken"]
    done = python("-m", "prove", *only, "--scale", "0.002", "--seed", "5")
    assert done.returncode == 1, done.stderr
    assert "kill-sqlite: a promise was broken." in done.stderr
    assert "properties" not in done.stderr
    (replay,) = re.findall(r"This shows it again:\n\n    python (.*)\n", done.stderr)
    again = python(*shlex.split(replay))
    assert again.returncode == 1, again.stderr
    # Which of the two is seen depends on where the first attempt was when it died.
    assert re.search("it had to be one that is told that the outcome is unknown|^I1 ", again.stdout, re.MULTILINE)


MANY = """
import os, sys, threading
from pathlib import Path
from types import SimpleNamespace

from prove import programme
from prove.violated import Violated

def run_seed(*_):
    with Path(sys.argv[1]).open("a") as begun:
        begun.write(".")
    threading.Event().wait(0.05)  # as long as some schedules take
    if "broken" in sys.argv:
        raise OSError
    return SimpleNamespace(violations=["I1"])

os.cpu_count = lambda: 2
programme.run_seed = run_seed
order = programme.Run(200_000, whole=True, seed=1, modes=(), folder=Path(), told=lambda _: None)
try:
    programme._simulating(order)
except (Violated, OSError) as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize(("how", "told"), [("", "Violated"), ("broken", "OSError")])
def test_of_many_schedules_none_is_begun_after_one_that_fails(tmp_path, how, told):
    """Those that run already go on to their end; that is before the end of the process."""
    done = python("-c", MANY, tmp_path / "begun", how)
    assert done.stdout == f"{told}\n", done.stderr
    assert (tmp_path / "begun").stat().st_size < 40  # of four hundred


def test_every_proof_is_named():
    """`--list` names each, with what makes it a whole one."""
    shown = python("-m", "prove", "--list").stdout
    assert [line.split()[0] for line in shown.splitlines()] == list(PROOFS)
    assert re.search(r"kill-sqlite +10,000 kills: ", shown)


@pytest.mark.parametrize("words", [["--scale", "0"], ["--only", "nothing"], ["--modes", "wishful"]])
def test_usage(words):
    """What cannot be meant is refused before anything runs."""
    assert python("-m", "prove", *words).returncode == 2


def test_the_page_carries_the_last_report(tmp_path):
    """Between its markers, and what people wrote around them stays."""
    proved = [Proved(PROOFS["kill-redis"], Done(1_000, "2,000 at 90 points", ("Redis 7",)), 3_720)]
    found = report.text(proved, 1, 1.0)
    page = tmp_path / "proof.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n", "utf-8")
    report.write(found, page)
    written = page.read_text("utf-8")
    assert "Seed 1, whole;" in written
    assert "| 1,000 kills (2,000 at 90 points) | 0 | 1 h 02 min |" in written
    assert (written.startswith("before\n"), written.endswith("after\n"), "old" in written) == (True, True, False)


def test_the_page_of_the_project_has_the_markers(tmp_path):
    """The command of the docs can write it; a page without markers is left alone."""
    page = tmp_path / "proof.md"
    page.write_text((ROOT / "docs" / "proof.md").read_text("utf-8"), "utf-8")
    report.write("x", page)
    page.write_text("nothing", "utf-8")
    with pytest.raises(ValueError, match="markers"):
        report.write("x", page)


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (61, "1 min 01 s"), (7_260, "2 h 01 min")])
def test_durations_are_for_people(seconds, words):
    """Hours, minutes or seconds, whichever are worth saying."""
    assert spoken(seconds) == words
