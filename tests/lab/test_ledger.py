"""The ledger keeps whole lines, in order, of any number of writers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from retrysafe.lab.evidence import Effect, Rules, as_line, read_lines
from retrysafe.lab.ledger import Ledger

WRITER = """
import sys
from pathlib import Path
from retrysafe.lab.evidence import Effect
from retrysafe.lab.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
for number in range(1, 1_000_000):
    ledger.write(Effect(number, "alice", sys.argv[2]))
    print(number, flush=True)
"""


def effects(lines):
    return read_lines([as_line(Rules()) + "\n", *lines]).effects


def test_news_are_told_once(tmp_path):
    """What was written since the last look, and never half a line."""
    ledger = Ledger(tmp_path / "ledger")
    assert ledger.news() == []
    ledger.write(Effect(1, "alice", "k"))
    ledger.write(Effect(2, "alice", "k"))
    assert [effect.at_ns for effect in effects(ledger.news())] == [1, 2]
    with (tmp_path / "ledger").open("a") as file:
        file.write('{"event":')
    assert ledger.news() == []


def test_a_killed_writer_leaves_what_it_said(tmp_path):
    """Two writers are killed while they write: every line that one of them had written is there, and is whole."""
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / "ledger", key], stdout=subprocess.PIPE, text=True)
        for key in ("k1", "k2")
    ]
    said = {}
    for key, writer in zip(("k1", "k2"), writers, strict=True):
        assert writer.stdout is not None
        for _ in range(50):
            said[key] = int(writer.stdout.readline())
    for writer in writers:
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
    seen = effects(Ledger(tmp_path / "ledger").news())
    for key, number in said.items():
        numbers = [effect.at_ns for effect in seen if effect.key == key]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) >= number
