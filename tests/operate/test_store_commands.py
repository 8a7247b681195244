"""`migrate` and `purge`: what they say, what they do, and beside what they run."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import secrets
import sqlite3
import subprocess
import sys
import threading

import pytest

from retrysafe.model import Claim
from retrysafe.operate.purge import purge
from retrysafe.protocol.transitions import ClaimIfAbsent, CompleteIfHeld, Purge, Purged, Read
from retrysafe.stores.migrations import Migration
from retrysafe.stores.sqlite import SqliteStore
from retrysafe.stores.sqlite_file import migrations
from retrysafe.testing import ManualClock
from tests.gateway.processes import environment
from tests.operate.shops import command, url_of

LATER = Migration(len(migrations()) + 1, "later", "DROP INDEX records_by_due;\n", after=True)


@pytest.fixture
def one_more(monkeypatch):
    """A release that knows one migration more, for after its deployment."""
    monkeypatch.setattr("retrysafe.stores.sqlite.migrations", lambda: (*migrations(), LATER))


def test_print_makes_nothing(tmp_path):
    """The SQL of what is missing, all of it for a file that is not there; and still it is not."""
    result = command("migrate", "--print", "--store", url_of(tmp_path))
    assert result.exit_code == 0
    assert result.output.startswith("-- 0001 before the deployment: records\n")
    assert "CREATE TABLE records" in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("gone", range(len(migrations()) + 1))
@pytest.mark.usefixtures("one_more")
def test_what_is_printed_can_be_gone_through_by_hand(gone, tmp_path):
    """A file that somebody brings up to date with the SQL is as one that was migrated, knows it, and can be used."""
    if gone:
        SqliteStore(tmp_path / "records.db", schema=migrations()[:gone]).open()
    by_hand = sqlite3.connect(tmp_path / "records.db")
    by_hand.executescript(command("migrate", "--print", "--store", url_of(tmp_path)).output)
    assert command("migrate", "--store", url_of(tmp_path)).output == "the schema is up to date\n"
    (tmp_path / "migrated").mkdir()
    command("migrate", "--store", url_of(tmp_path / "migrated"))
    migrated = sqlite3.connect(tmp_path / "migrated" / "records.db")
    for look in (
        "SELECT type, name, sql FROM sqlite_schema ORDER BY name",
        "SELECT migrations FROM meta",
        "PRAGMA user_version",
    ):
        assert by_hand.execute(look).fetchall() == migrated.execute(look).fetchall()
    assert command("stats", "--store", url_of(tmp_path)).exit_code == 0
    by_hand.close()
    migrated.close()


@pytest.mark.usefixtures("one_more")
def test_migrate_goes_through_what_is_missing(tmp_path):
    """A deployment: the new release opens the file, its migration after waits, then somebody migrates."""
    SqliteStore(tmp_path / "records.db", schema=migrations()).open()
    printed = command("migrate", "--print", "--store", url_of(tmp_path))
    assert printed.output.startswith(f"-- {LATER}\nBEGIN IMMEDIATE;\nDROP INDEX records_by_due;\n")
    result = command("migrate", "--store", url_of(tmp_path))
    assert (result.exit_code, result.output) == (0, f"gone through {LATER}\n")
    again = command("migrate", "--store", url_of(tmp_path))
    assert (again.exit_code, again.output) == (0, "the schema is up to date\n")
    old = SqliteStore(tmp_path / "records.db", schema=migrations())
    with pytest.raises(Exception, match="upgrade retrysafe"):
        old.open()
    old.close()


def test_a_store_without_a_schema(tmp_path):
    """There is nothing to do."""
    assert command("migrate", "--store", "memory://").output == "the schema is up to date\n"
    assert command("migrate", "--print", "--store", "memory://").output == ""


@pytest.mark.parametrize("arguments", [(), ("--print",)])
def test_migrate_of_what_is_no_store(arguments, tmp_path):
    """Another's file is refused with exit code 3, and stays as it is."""
    (tmp_path / "records.db").write_bytes(b"not a database\n" * 500)
    result = command("migrate", *arguments, "--store", url_of(tmp_path))
    assert (result.exit_code, result.stdout) == (3, "")
    assert "not an SQLite database" in result.stderr


@pytest.mark.parametrize("name", [("purge",), ("stats",), ("migrate",), ("migrate", "--print")])
@pytest.mark.parametrize("obstacle", ["a folder", "a lock"])
def test_a_store_that_cannot_be_used(name, obstacle, tmp_path, monkeypatch):
    """What SQLite says of a file is one sentence with what to do about it, and exit code 3; never 1, a finding."""
    monkeypatch.setitem(SqliteStore.__init__.__kwdefaults__, "busy_ms", 10)
    if obstacle == "a folder":
        (tmp_path / "records.db").mkdir()
        result = command(*name, "--store", url_of(tmp_path))
    else:
        SqliteStore(tmp_path / "records.db").open()
        other = sqlite3.connect(tmp_path / "records.db", isolation_level=None)
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        result = command(*name, "--store", url_of(tmp_path))
        other.close()
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith(f"retrysafe: {tmp_path}/records.db: ")


@pytest.mark.parametrize("name", [("purge",), ("stats",), ("keys", "rotate")])
def test_a_store_that_is_not_there_is_not_made(name, tmp_path):
    """A mistyped URL is no success: exit code 3, and no file."""
    result = command(*name, "--store", url_of(tmp_path), RETRYSAFE_ENCRYPTION_KEYS="ab" * 32)
    assert (result.exit_code, result.stdout) == (3, "")
    assert "is not there, and was not made" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [("purge",), ("stats",), ("keys", "rotate")])
def test_memory_is_no_store_of_others(name):
    """Nothing can be in it, so nothing is said to be well with it: exit code 2."""
    result = command(*name, "--store", "memory://", RETRYSAFE_ENCRYPTION_KEYS="ab" * 32)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "name the store of the applications" in result.stderr


# --- purge ------------------------------------------------------------------------------------------


def _over(path, count, clock=None):
    """Records that are over as soon as they are finished."""
    store = SqliteStore(path, **({"clock": clock} if clock else {}))
    store.open()

    async def finish():
        claims = [Claim(secrets.token_bytes(32), bytes(16), 1) for _ in range(count)]
        await asyncio.gather(*(store.submit(ClaimIfAbsent(c.record_id, c.token, b"f", 60_000, 60_000)) for c in claims))
        await asyncio.gather(*(store.submit(CompleteIfHeld(claim, b"x", 0, 0)) for claim in claims))

    asyncio.run(finish())
    return store


def test_purge_goes_on_until_nothing_is_due(tmp_path):
    """Batch by batch, each told of with all that was done up to then."""
    store = _over(tmp_path / "records.db", 450)
    told: list[Purged] = []
    assert purge(store, told.append) == Purged(0, 450, more=False)
    assert [done.forgotten for done in told] == [200, 400, 450]
    store.close()


def test_purge_beside_live_traffic(tmp_path):
    """While records are purged others are claimed, completed and read, and none of these is lost."""
    store = _over(tmp_path / "records.db", 2_000)
    kept, stop = [], threading.Event()

    def traffic():
        with_own = SqliteStore(tmp_path / "records.db")
        while not stop.is_set():
            claim = Claim(secrets.token_bytes(32), bytes(16), 1)
            with_own.perform(ClaimIfAbsent(claim.record_id, claim.token, b"f", 60_000, 60_000))
            assert with_own.perform(CompleteIfHeld(claim, b"kept", 600_000, 600_000))
            kept.append(claim.record_id)
        with_own.close()

    thread = threading.Thread(target=traffic)
    thread.start()
    done = purge(store, lambda _: None)
    stop.set()
    thread.join()
    assert done == Purged(0, 2_000, more=False)
    assert kept
    assert all(store.perform(Read(record_id)).record.response == b"kept" for record_id in kept)
    store.close()


def test_what_was_deleted_is_gone_from_the_file(tmp_path):
    """An answer whose lifetime is over does not linger in free pages."""
    clock = ManualClock()
    store = SqliteStore(tmp_path / "records.db", clock=clock)
    store.open()
    claim, canary = Claim(bytes(32), bytes(16), 1), b"canary-7777" * 2_000
    store.perform(ClaimIfAbsent(claim.record_id, claim.token, b"f", 60_000, 60_000))
    store.perform(CompleteIfHeld(claim, canary, 1_000, 1_000_000))
    clock.advance(1_000)
    assert store.perform(Purge()).expired == 1
    store.close()
    assert b"canary-7777" not in (tmp_path / "records.db").read_bytes()


def test_purge_for_programs(tmp_path):
    """As JSON, and nothing on standard error that nobody looks at."""
    _over(tmp_path / "records.db", 3).close()
    result = command("purge", "--json", "--store", url_of(tmp_path))
    assert json.loads(result.stdout) == {"expired": 0, "forgotten": 3}
    assert result.stderr == ""


def test_progress_is_for_terminals(tmp_path):
    """On a terminal it says how far it is; the result stands alone on standard output."""
    _over(tmp_path / "records.db", 450).close()
    terminal, seen_by_it = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "retrysafe", "purge", "--store", url_of(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=seen_by_it,
        env=environment(),
        check=True,
        cwd=tmp_path,
    )
    os.close(seen_by_it)
    shown = os.read(terminal, 10_000)
    os.close(terminal)
    assert done.stdout == b"expired 0, forgotten 450\n"
    assert b"\rexpired 0, forgotten 200\rexpired 0, forgotten 400\r" in shown
