"""Code of the last release runs on the schema of this one, beside it, until the migration after the deployment."""

from __future__ import annotations

import re
import sqlite3

import pytest

from retrysafe.model import Claim, State
from retrysafe.protocol.transitions import ClaimIfAbsent, CompleteIfHeld, Read
from retrysafe.stores.sqlite import SqliteStore
from retrysafe.testing import ManualClock
from tests.stores.last_release import STATEMENTS

ID, TOKEN, LATER = bytes(32), bytes(16), bytes([1]) * 16
VALUES = {
    "record_id": ID, "token": TOKEN, "seen_token": TOKEN, "fingerprint": b"f", "lease_ms": 1_000, "lifetime_ms": 1_000,
    "forget_after_ms": 1_000, "response": b"response", "batch_max": 9, "secret": b"s" * 32, "secret_check": b"c" * 32,
}  # fmt: skip


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def store(tmp_path, clock):
    """A file with the schema of this release."""
    store = SqliteStore(tmp_path / "records.db", clock=clock)
    store.open()
    yield store
    store.close()


@pytest.fixture
def old(tmp_path, store, clock):
    """Executes a statement of the last release on it, as that would."""
    connection = sqlite3.connect(tmp_path / "records.db", isolation_level=None)

    def execute(name, **values):
        wanted = re.findall(r":(\w+)", STATEMENTS[name])
        given = VALUES | {"now_ms": clock()} | values
        return connection.execute(STATEMENTS[name], {value: given[value] for value in wanted})

    yield execute
    connection.close()


@pytest.mark.parametrize("name", STATEMENTS)
def test_every_statement_can_be_executed(old, name):
    """Nothing that it names is gone, and nothing that it does not name is asked of it."""
    old(name)


def test_each_finds_what_the_other_wrote(store, old):
    """A record that the last release claimed is completed here, and one from here is completed there."""
    assert old("CLAIM").rowcount == 1
    found = store.perform(ClaimIfAbsent(ID, LATER, b"f", 1_000, 1_000, "POST /orders"))
    assert (found.record.token, found.record.route) == (TOKEN, "")
    assert store.perform(CompleteIfHeld(Claim(ID, TOKEN, 1), b"from here", 1_000, 1_000))
    ((state, *_, response),) = old("RECORD").fetchall()
    assert (state, response) == (State.COMPLETED, b"from here")

    other = bytes([2]) * 32
    store.perform(ClaimIfAbsent(other, LATER, b"f", 1_000, 1_000, "POST /orders"))
    assert old("CompleteIfHeld", record_id=other, token=LATER).rowcount == 1
    found = store.perform(Read(other))
    assert (found.record.response, found.record.route) == (b"response", "POST /orders")


def test_the_last_release_is_not_refused(tmp_path, store):
    """What it looks at before it uses a file says that it may: no migration that it must know."""
    store.close()
    connection = sqlite3.connect(tmp_path / "records.db")
    assert connection.execute("PRAGMA user_version").fetchall() == [(1,)]
    connection.close()
