"""The product in a hostile world: no schedule breaks what was promised.

`RETRYSAFE_PROVE=1` runs a million schedules. A run that fails prints the command that shows it again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from functools import lru_cache

import pytest

from retrysafe.lab.auditor import audit
from retrysafe.lab.evidence import Mode, Replayed, Rules, gathered
from retrysafe.lab.simulate.__main__ import replay_command
from retrysafe.lab.simulate.explore import (
    INTERRUPTIONS,
    Triple,
    coverage,
    digest,
    every_interruption,
    run_seed,
    trace,
)
from retrysafe.model import State
from retrysafe.protocol.states import TABLE, Event

PROVE = bool(os.environ.get("RETRYSAFE_PROVE"))
MODES = tuple(Mode)
SEEDS = 1_000_000 // len(MODES) if PROVE else 5_000
DELAYS = 1 if PROVE else 0
TRIPLES_OF = SEEDS if PROVE else 1_000
BY_REQUESTS = {
    Event.CLAIM, Event.TAKE_OVER, Event.RECLAIM, Event.RENEW, Event.JOURNAL, Event.COMPLETE, Event.RELEASE,
    Event.DISCARD, Event.GIVE_UP, Event.ABANDON, Event.EXPIRE, Event.FORGET,
}  # fmt: skip


class Explored:
    """What came of all seeds of one mode."""

    def __init__(self, mode: Mode) -> None:
        self.broken: list[str] = []
        self.moves: Counter[tuple[str | None, str, str | None]] = Counter()
        self.triples: Counter[Triple] = Counter()
        for seed in range(SEEDS):
            run = run_seed(seed, mode)
            if run.violations:
                self.broken.append(f"{run.violations[0]}\n{replay_command(mode, seed)}")
                return
            for write in run.evidence.writes:
                if write.took_effect:
                    self.moves[write.before, write.action, write.after] += 1
            if seed < TRIPLES_OF:
                self.triples += coverage([run])


@lru_cache(maxsize=len(MODES))
def explored(mode: Mode) -> Explored:
    """Each mode once for all tests here."""
    return Explored(mode)


@pytest.mark.parametrize("mode", MODES)
def test_no_schedule_breaks_a_promise(mode):
    """Whatever is lost, late, paused, killed, cut off or failed over, at whatever point."""
    assert not explored(mode).broken, explored(mode).broken[0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("what", ["calm", *INTERRUPTIONS])
def test_no_schedule_of_a_duel_breaks_a_promise(mode, what):
    """Two workers and one key, every schedule, and a fault after every step."""
    delays = 2 if what == "calm" else DELAYS
    for schedule, run in every_interruption(mode, INTERRUPTIONS.get(what), delays):
        command = f"python -m retrysafe.lab.simulate --mode {mode} --duel {what} --schedule {schedule} --trace"
        assert not run.violations, f"{run.violations[0]}\n{command}"


def test_everything_that_may_happen_to_a_record_happens():
    """Each move of the table that requests and the reaper make, and no other."""
    moves: Counter[tuple[str | None, str, str | None]] = sum((explored(mode).moves for mode in MODES), Counter())
    table = {
        (before and before.value, event.name, after and after.value): event for (before, event), after in TABLE.items()
    }
    assert set(moves) <= set(table)
    wanted = {move for move, event in table.items() if event in BY_REQUESTS}
    assert not {move for move in wanted if moves[move] < (100 if PROVE else 1)}


def test_every_kind_of_fault_stands_beside_every_event():
    """The triples of state, event and fault are counted; the common ones are all there."""
    seen: Counter[Triple] = sum((explored(mode).triples for mode in MODES), Counter())
    kinds = {kind for _, _, kind in seen}
    assert kinds == {"", "crash", "pause", "partition", "failover", "shutdown", "store away"}
    events = ["CLAIM", "COMPLETE", "RENEW", "GIVE_UP", "RELEASE", "DISCARD"] + ["RECLAIM", "ABANDON"] * PROVE
    for kind in kinds:
        for event in events:
            count = sum(seen[state, event, kind] for state in ("absent", "in_progress", "retryable", "unknown"))
            assert count >= (100 if PROVE else 1), (event, kind)


def test_traces_follow_the_table():
    """What a run did to the records, by the names of the protocol: each step is one of its moves."""
    seen = set()
    for seed in range(100):
        for step in trace(run_seed(seed, Mode.RERUN).evidence):
            seen.add(step.action)
            if step.action in Event.__members__:
                before = None if step.before is None else State(step.before)
                assert TABLE[before, Event[step.action]] == (step.after and State(step.after)), (seed, step)
    assert {"CLAIM", "TAKE_OVER", "COMPLETE", "EFFECT", "CRASH", "PAUSE", "FAILOVER"} <= seen


_DIGESTS = """
from retrysafe.lab.evidence import Mode
from retrysafe.lab.simulate.explore import digest, run_seed
for seed in range(25):
    print(seed, digest(run_seed(seed, Mode.MANUAL).evidence))
"""


def test_a_seed_gives_the_same_run_again():
    """In this process, and in others whose hashes are other ones (I16)."""
    lines = [Replayed(str(seed), digest(run_seed(seed, Mode.MANUAL).evidence)) for _ in range(2) for seed in range(25)]
    for hashes in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", _DIGESTS],
            env={**os.environ, "PYTHONHASHSEED": hashes},
            capture_output=True,
            text=True,
            check=True,
        )
        lines += [Replayed(*line.split()) for line in done.stdout.splitlines()]
    assert len(lines) == 100
    assert audit(gathered(Rules(), lines)) == ()


@pytest.mark.parametrize(
    ("mode", "seed"), [(Mode.RERUN, 20_507_889), (Mode.STEPS, 40_147_975), (Mode.TRANSACTIONAL, 20_280_664)]
)
def test_a_run_that_broke_a_promise_once(mode, seed):
    """One was the product's fault, which forgot what an earlier owner had done; one the auditor's, with a pause; and
    one the simulated server's, which purged a record that the transaction of a handler had locked.
    """
    assert run_seed(seed, mode).violations == ()


def test_the_digest_tells_runs_apart():
    """Or it would show nothing."""
    assert len({digest(run_seed(seed, Mode.MANUAL).evidence) for seed in range(50)}) == 50


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--seed", "7", "--trace"], 0, "no violations"),
        (["--seeds", "20", "--mode", "rerun"], 0, "20 runs of mode rerun, no violations"),
        (["--duel", "calm", "--delays", "1"], 0, "schedules of calm in mode manual"),
        (["--bug", "no-mark"], 1, "again: python -m retrysafe.lab.simulate --mode manual --seed"),
        (["--bug", "check-then-act", "--duel", "calm"], 1, "--duel calm --schedule"),
        (["--mode", "sometimes"], 2, "invalid"),
    ],
)
def test_the_command_line(arguments, code, words):
    """Seeds, one seed with its trace, duels, and planted bugs; the exit code says what was found."""
    command = [sys.executable, "-m", "retrysafe.lab.simulate", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, words in done.stdout + done.stderr) == (code, True), done


def test_a_find_is_shown_again_by_the_command_that_it_prints():
    """The same violation, with everything that led to it."""
    found = subprocess.run(
        [sys.executable, "-m", "retrysafe.lab.simulate", "--bug", "cancel-releases"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    _, _, command = found.stdout.partition("again: python ")
    again = subprocess.run([sys.executable, *command.split()], capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert again.stdout.splitlines()[0] == found.stdout.splitlines()[0]
    assert '"event":"effect"' in again.stdout
