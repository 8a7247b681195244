"""The power is cut at any moment: with `synchronous=FULL`, what was answered is there; with NORMAL it would not be.

Each image of the disk is opened by the store itself and must be the store as it was after the last batch that was
answered, or after the one that was under way: never between two of a batch, and never damaged.
"""

from __future__ import annotations

import os
import random
import sqlite3
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from retrysafe.errors import StoreError
from retrysafe.model import Claim, State
from retrysafe.protocol import effects, transitions
from retrysafe.protocol.effects import Transition
from retrysafe.stores import sqlite_file, sqlite_session
from retrysafe.stores.plan import AgreeOnSecret
from retrysafe.stores.sqlite import SqliteStore
from retrysafe.stores.sqlite_file import Identity, migrations
from retrysafe.stores.sqlite_session import Session
from retrysafe.testing.clock import ManualClock
from tests.stores.power import Disk, FileOnDisk, Luck, Synced, Written, image

SEED = int(os.environ.get("RETRYSAFE_SEED", "20240918"))
IMAGES = 10_000 if os.environ.get("RETRYSAFE_PROVE") else 300
BATCHES = 120
NAME = "records.db"
HOUR_MS = 3_600_000

Content = frozenset[tuple[Any, ...]]


@dataclass
class Run:
    """A store that ran on a disk.

    Attributes:
        disk: with everything that was asked of it.
        answered: how much had been asked when each batch was answered.
        contents: of the store, before the first batch and after each.
    """

    disk: Disk
    answered: list[int] = field(default_factory=list)
    contents: list[Content] = field(default_factory=list)


def _content(connection: Any) -> Content:
    """All that clients and operators may rely on."""
    tables = ("records", "history", "answers")
    return frozenset(
        (table, *row) for table in tables for row in connection.execute(f"SELECT * FROM {table}").fetchall()
    )


class Callers:
    """They ask for whatever may be asked for, of a few records."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._records = [chance.randbytes(32) for _ in range(24)]
        self._tokens: dict[bytes, bytes] = {}

    def batch(self) -> list[Transition[Any]]:
        """What arrives while a commit is being made durable."""
        return [self._one() for _ in range(self._chance.choice((1, 1, 2, 5, 9)))]

    def _one(self) -> Transition[Any]:
        chance = self._chance
        record_id = chance.choice(self._records)
        token = self._tokens.get(record_id, b"0" * 16)
        claim, new = Claim(record_id, token, attempt=1), chance.randbytes(16)
        response = chance.randbytes(chance.choice((10, 300, 5_000, 20_000)))
        wish: Transition[Any] = chance.choice((
            transitions.ClaimIfAbsent(record_id, new, b"\1print", HOUR_MS, HOUR_MS, "POST /orders", b"request"),
            transitions.ClaimIfAbsent(record_id, new, b"\1print", HOUR_MS, HOUR_MS),
            transitions.TakeOverIfLapsed(record_id, token, new, HOUR_MS, HOUR_MS),
            transitions.ClaimIfRetryable(record_id, token, new, HOUR_MS, HOUR_MS),
            transitions.RenewIfHeld(claim, HOUR_MS, HOUR_MS),
            transitions.KeepJournalIfHeld(claim, response),
            transitions.CompleteIfHeld(claim, response, HOUR_MS, HOUR_MS),
            transitions.CompleteIfHeld(claim, response, HOUR_MS, HOUR_MS),
            transitions.ReleaseIfHeld(claim, HOUR_MS),
            transitions.DiscardIfHeld(claim),
            transitions.MarkUnknownIfHeld(claim, HOUR_MS),
            transitions.ForgetIfSeen(record_id, token, State.COMPLETED),
            transitions.AddHistory(record_id, b"entry", HOUR_MS),
            transitions.CountAnswers((transitions.AnswerCount("POST /orders", 1, 2),)),
            transitions.Purge(),
            transitions.Read(record_id),
        ))  # fmt: skip
        if isinstance(wish, effects.Claiming):
            self._tokens[record_id] = new
        return wish


def ran(folder: Path, synchronous: str | None) -> Run:
    """Let a store do some hundreds of transitions on a disk, with checkpoints, and opened anew now and then."""
    chance, clock = random.Random(SEED), ManualClock()
    run = Run(Disk(f"disk {folder.name} {synchronous}", synchronous))
    callers = Callers(chance)
    for batch in range(BATCHES):
        if batch % 50 == 0:
            session = Session(_file(folder, run.disk), clock)
            assert not _errors(session.run([AgreeOnSecret(b"s" * 32)]))
            if not batch:
                run.contents.append(_content(session._connection))
                run.answered.append(len(run.disk.asked))
        clock.advance(chance.choice((0, 1, HOUR_MS // 2)))
        assert not _errors(session.run(callers.batch()))
        run.answered.append(len(run.disk.asked))
        run.contents.append(_content(session._connection))
        session.tidy()
        if batch % 50 == 49:
            session.close()
    session.close()
    return run


def _file(folder: Path, disk: Disk) -> FileOnDisk:
    return FileOnDisk(
        path=folder / NAME, force=False, busy_ms=5_000, migrations=migrations(), identity=Identity(), disk=disk
    )


def _errors(outcomes: Sequence[Any]) -> list[Any]:
    return [outcome for outcome in outcomes if isinstance(outcome, StoreError)]


def after_power_cut(files: dict[str, bytes], folder: Path) -> Content:
    """What the store finds in an image of the disk, once it has opened it."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    store = SqliteStore(folder / NAME)
    store.open(b"s" * 32)
    store.close()
    connection = sqlite3.connect(folder / NAME)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return _content(connection)
    finally:
        connection.close()
        for file in folder.iterdir():
            file.unlink()


def lost(run: Run, folder: Path, images: int) -> Iterator[int]:
    """Of each image, how many answered batches are missing in it; an image that is no moment of the store fails."""
    folder.mkdir(exist_ok=True)
    for number in range(images):
        chance = random.Random(f"{SEED} {number}")
        moment = chance.randrange(len(run.disk.asked) + 1)
        found = after_power_cut(image(run.disk.asked[:moment], NAME, Luck(chance)), folder)
        answered = max(bisect_right(run.answered, moment) - 1, 0)  # none yet: as empty as after the first
        under_way = run.contents[answered + 1 : answered + 2]
        if found in (run.contents[answered], *under_way):
            yield 0
            continue
        earlier = [number for number, content in enumerate(run.contents[:answered]) if content == found]
        assert earlier, f"image {number} of seed {SEED} is no moment of the store"
        yield answered - earlier[-1]


@pytest.fixture
def short_log(monkeypatch):
    """The log is brought back often, so that many cuts fall into that."""
    monkeypatch.setattr(sqlite_file, "CHECKPOINT_BYTES", 128 << 10)
    monkeypatch.setattr(sqlite_session, "LOOK_EVERY_BYTES", 32 << 10)


def test_nothing_that_was_answered_is_lost(tmp_path, short_log):
    """The store as it is: whatever was answered is there after any cut, whole, and nothing is damaged."""
    run = ran(tmp_path, None)
    assert sum(asked == Synced(NAME) for asked in run.disk.asked) > 5, "there were checkpoints to cut into"
    assert len(set(run.contents)) > BATCHES // 2, "batches change something"
    assert set(lost(run, tmp_path / "image", IMAGES)) == {0}


def test_with_less_syncing_answers_are_lost(tmp_path, short_log):
    """With NORMAL, the same images lose what was answered: the rig can tell."""
    run = ran(tmp_path, "NORMAL")
    losses = list(lost(run, tmp_path / "image", IMAGES // 3))
    assert sum(loss > 0 for loss in losses) > len(losses) // 10


@pytest.mark.parametrize("file", [NAME, f"{NAME}-wal"])
def test_a_disk_that_lies_about_a_file_is_found_out(tmp_path, short_log, file):
    """It says that it synced and did not: soon an image is damaged, or lacks what was answered."""
    run = ran(tmp_path, None)
    run.disk.asked = [Written(file, 0, b"") if asked == Synced(file) else asked for asked in run.disk.asked]
    with pytest.raises((AssertionError, StoreError, sqlite3.DatabaseError)):
        assert not any(lost(run, tmp_path / "image", IMAGES // 3))
