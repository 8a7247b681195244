"""The standard library's SQLite, seen from the kernel: no transition is answered before its log was synced."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.stores.system_calls import Call, calls, traced

ROOT = Path(__file__).parents[2]
NAMES = ("write", "pwrite64", "fdatasync", "fsync")
TRANSITIONS = 36


def unsynced(seen: Sequence[Call], log: str) -> Iterator[str]:
    """Answers that were given while something in the log was not on the disk; or that wrote nothing to it.

    Args:
        seen: system calls in the order in which they came back.
        log: path of the write-ahead log.
    """
    written = dirty = False
    answers = 0
    for call in seen:
        if call.file == log and call.name == "pwrite64":
            written = dirty = True
        elif call.file == log and call.name in ("fdatasync", "fsync") and call.result == 0:
            dirty = False
        elif call.name == "write" and '"asked\\n"' in call.text:
            written = False
        elif call.name == "write" and '"answered\\n"' in call.text:
            answers += 1
            if dirty or not written:
                yield f"answer {answers}: {'not synced' if dirty else 'nothing written'}"
    if answers != TRANSITIONS:
        yield f"{answers} answers"


def _seen(tmp_path: Path, *weaker: str) -> list[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    program = [sys.executable, "-m", "tests.stores.told_when_durable", f"{tmp_path / 'records.db'}", *weaker]
    seen = traced(program, NAMES, tmp_path / "calls", environment)
    return list(unsynced(seen, f"{tmp_path / 'records.db'}-wal"))


def test_an_answer_is_given_only_when_the_log_is_synced(tmp_path):
    """Each of 36 transitions: written to the log, the log synced and the sync returned, then answered."""
    assert not _seen(tmp_path)


def test_an_answer_that_came_too_early_is_seen(tmp_path):
    """With `synchronous=NORMAL` all of them are."""
    assert len(_seen(tmp_path, "NORMAL")) == TRANSITIONS


def test_a_call_that_another_thread_interrupts_is_put_together():
    """A sync counts when it comes back, not when it is called."""
    text = """\
7 pwrite64(5</x-wal>, "a", 1, 0) = 1
7 fdatasync(5</x-wal> <unfinished ...>
8 write(1<pipe:[1]>, "answered\\n", 9) = 9
7 <... fdatasync resumed>) = 0
"""
    assert [(call.name, call.file, call.result) for call in calls(text)] == [
        ("pwrite64", "/x-wal", 1),
        ("write", "pipe:[1]", 9),
        ("fdatasync", "/x-wal", 0),
    ]
