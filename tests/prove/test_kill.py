"""Processes and stores die at every point of a request, and every promise is kept.

Over SQLite every point is taken once; elsewhere a tenth of them, and fewer where processes stop or stores die instead,
chosen by a seed that is printed. With RETRYSAFE_PROVE=1, and time for it (`-o faulthandler_timeout=7200`), every
point is taken everywhere; `make prove` takes thousands more at random.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from functools import partial

import pytest

from prove.kill import rig
from prove.kill.handlers import LEASE_MS
from prove.kill.modes import BROKEN, PROVED
from prove.kill.nodes import until
from prove.kill.orders import Action, Case, Shot
from prove.kill.places import PLACES
from prove.kill.proof import a_share, every_point, prove
from prove.violated import Violated
from tests.gateway.processes import environment

SEED = int(os.environ.get("RETRYSAFE_SEED") or random.SystemRandom().randrange(1 << 32))
PROVE = bool(os.environ.get("RETRYSAFE_PROVE"))
SHARES = {Action.KILL: 10, Action.STOP: 30, Action.STORE: 30}  # one in so many, unless all are to be taken
SERVERS = [store for store in PLACES if store != "sqlite"]


def run(store, plan, modes, folder):
    """Prove it; a violation fails the test, with the command that shows it again."""
    folder.chmod(0o755)
    sys.stdout.write(f"RETRYSAFE_SEED={SEED} chooses the same points again\n")
    try:
        return prove(store, plan, modes=modes, folder=folder, told=lambda _: None)
    except Violated as violated:
        pytest.fail("\n".join([*violated.sentences, "", f"Again: {violated.replay}", *violated.evidence]))


@pytest.fixture
def place(tmp_path_factory):
    """A folder that a server of another user can look into."""
    folder = tmp_path_factory.mktemp("prove")
    folder.parent.chmod(0o755)
    return folder


@pytest.mark.parametrize("mode", PROVED, ids=lambda mode: mode.name)
def test_killed_at_every_point(mode, place):
    """Over SQLite: `kill -9` at each point of each situation, a new process, two retries, and the auditor."""
    tally = run("sqlite", {Action.KILL: every_point(Action.KILL)}, [mode], place)[Action.KILL]
    assert tally.cases > 100
    assert tally.passed_by <= tally.cases // 10, "most of the points that were found are passed again"
    for point in ("before open #1", "before ClaimIfAbsent #1", mode.lost):
        assert (mode.name, point) in tally.points


def test_stopped_past_the_lease(place):
    """Over SQLite: a process stops at a point, somebody else asks after its lease, and it goes on."""
    tallies = run("sqlite", {Action.STOP: a_share(Action.STOP, SEED, 1 if PROVE else 40)}, PROVED, place)
    assert tallies[Action.STOP].hurt > 0


@pytest.mark.parametrize("store", SERVERS)
def test_some_of_the_points(store, place):
    """Over each server: a process is killed, or stopped, or the server is killed under it."""
    plan = {action: a_share(action, SEED, 1 if PROVE else share) for action, share in SHARES.items()}
    tallies = run(store, plan, PROVED, place)
    assert all(tally.hurt > 0 for tally in tallies.values())


def test_a_broken_promise_is_found(place):
    """A mode that promises at most one effect and runs again does not get through."""
    case = Case((Shot(Action.KILL, "before CompleteIfHeld #1"),))
    with pytest.raises(Violated) as caught:
        prove("sqlite", {Action.KILL: lambda *_: iter([case])}, modes=[BROKEN], folder=place, told=lambda _: None)
    assert any(sentence.startswith("I1 ") for sentence in caught.value.sentences)
    words = caught.value.replay.replace("python", sys.executable, 1)
    again = subprocess.run(
        words, shell=True, env=environment(PYTHONPATH="src:."), capture_output=True, text=True, check=False
    )
    assert again.returncode == 1, again.stderr
    assert "I1 (a key has at most one effect while it lives)" in again.stdout
    (auditor,) = re.findall(r"python (-m retrysafe.lab.auditor .*)", again.stdout)
    audited = subprocess.run([sys.executable, *auditor.split()], capture_output=True, text=True, check=False)
    assert (audited.returncode, audited.stdout.count("I1 (")) == (1, 1)


def test_a_key_that_does_not_move_on_is_found(place, monkeypatch):
    """Who waits for less than a lease finds a key in progress, and is told how to see it again."""
    monkeypatch.setattr(rig, "until", partial(until, patience_s=LEASE_MS / 10_000))
    case = Case((Shot(Action.KILL, "before CompleteIfHeld #1"),))
    with pytest.raises(Violated) as caught:
        prove("sqlite", {Action.KILL: lambda *_: iter([case])}, modes=PROVED[:1], folder=place, told=lambda _: None)
    (sentence,) = caught.value.sentences
    assert sentence.startswith("I6 ")
    assert caught.value.replay.endswith(f"--mode manual --case '{case}'")


@pytest.mark.parametrize("case", [
    Case((Shot(),)),
    Case((Shot(Action.KILL, "before CompleteIfHeld #1"), Shot(Action.STOP, "after open #2")), slow=True),
    Case((Shot(Action.STORE, "protocol/flow.py:120 #3"),)),
])  # fmt: skip
def test_a_case_is_its_words(case):
    """What a replay command says of a case is that case."""
    assert Case.parsed(str(case)) == case
