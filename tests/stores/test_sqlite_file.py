"""The SQLite file: what is made, what is refused and left alone, how it grows older, where it may be."""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
import stat
import time
from contextlib import suppress
from pathlib import Path

import pytest

from retrysafe.errors import StoreUnavailable, StoreUnusable
from retrysafe.model import Claim
from retrysafe.protocol.transitions import ClaimIfAbsent, CompleteIfHeld, Read
from retrysafe.stores.migrations import Migration
from retrysafe.stores.sqlite import SqliteStore
from retrysafe.stores.sqlite_file import (
    CHECKPOINT_BYTES,
    CHECKPOINTS_SAFE_SINCE,
    SqliteFile,
    file_system_of,
    log_reaches,
    migrations,
    statements,
)
from retrysafe.testing import ManualClock

SECOND = """
-- A later release adds a column, with something in it for the records that are there.
ALTER TABLE records ADD COLUMN note TEXT NOT NULL DEFAULT 'from before';
CREATE INDEX records_by_note ON records (note);
"""
NOTE = Migration(len(migrations()) + 1, "note", SECOND)
LAST_WORD = Migration(len(migrations()) + 1, "note", SECOND, after=True)
MOUNTS = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /mnt/team\040files rw - nfs4 server:/export rw
31 22 0:27 / /mnt rw - tmpfs tmpfs rw
32 22 0:28 / /mnt/shop rw - cifs //server/shop rw
33 32 0:29 / /mnt/shop/local rw - xfs /dev/vdb rw
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "records.db"


@pytest.fixture
def stores(path):
    """Makes stores on the path, and closes them."""
    made = []

    def make(**options):
        made.append(SqliteStore(options.pop("path", path), **options))
        return made[-1]

    yield make
    for store in made:
        store.close()


def claim(store, record_id=None):
    claiming = ClaimIfAbsent(record_id or secrets.token_bytes(32), secrets.token_bytes(16), b"f", 60_000, 60_000)
    found = store.perform(claiming)
    return Claim(claiming.record_id, found.record.token, found.record.attempt)


def plain(path, *statements):
    """What a stranger does with SQLite, closed again; the last answer."""
    connection = sqlite3.connect(path, isolation_level=None)
    rows = [connection.execute(statement).fetchall() for statement in statements]
    connection.close()
    return rows[-1]


# --- what is made -------------------------------------------------------------------------------


def test_file_is_for_its_user_only(stores, path):
    """The file, and all that SQLite and we put beside it, can be read by nobody else."""
    before = os.umask(0)
    try:
        claim(stores())
    finally:
        os.umask(before)
    beside = sorted(path.parent.iterdir())
    assert [file.name for file in beside] == ["records.db", "records.db-shm", "records.db-wal"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in beside} == {0o600}


def test_commits_survive_a_loss_of_power(path):
    """Every connection syncs the log at each commit; checkpoints are left to SQLite only where that is safe."""
    connection = SqliteFile(path, force=False, busy_ms=100, migrations=migrations()).connect()
    settings = {
        name: connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "wal_autocheckpoint")
    }
    connection.close()
    checkpoint = 1_000 if sqlite3.sqlite_version_info >= CHECKPOINTS_SAFE_SINCE else 0
    assert settings == {"journal_mode": "wal", "synchronous": 2, "wal_autocheckpoint": checkpoint}


def test_nothing_stays_beside_a_closed_file(stores, path):
    """The last to close brings the log back into the file."""
    store = stores()
    claim(store)
    store.close()
    assert [file.name for file in path.parent.iterdir()] == ["records.db"]


def test_empty_file_is_a_new_one(stores, path):
    """A file that was made beforehand, with the permissions that somebody wants, is taken as it is."""
    path.touch(mode=0o640)
    claim(stores())
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_links_and_folders_do_not_matter(stores, path, tmp_path, monkeypatch):
    """One file has one log: by its name, by a link, by a relative path from a folder since left."""
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.db"
    link.symlink_to(path)
    monkeypatch.chdir(tmp_path)
    made = [stores(), stores(path=link), stores(path="records.db")]
    monkeypatch.chdir(tmp_path / "elsewhere")
    held = [claim(store, bytes(32)) for store in made]
    assert held == [held[0]] * 3
    assert [file.name for file in (tmp_path / "elsewhere").iterdir()] == ["link.db"]


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"ab", b"not a database\n" * 500, bytes(5_000)], ids=["short", "text", "zeros"])
def test_other_file_is_left_alone(stores, path, content):
    """What is no database is refused and not touched."""
    path.write_bytes(content)
    with pytest.raises(StoreUnusable, match="not an SQLite database"):
        stores().open()
    assert path.read_bytes() == content


@pytest.mark.parametrize("mark", ["CREATE TABLE theirs (x)", "PRAGMA user_version = 3", "PRAGMA application_id = 3"])
def test_other_database_is_left_alone(stores, path, mark):
    """The database of another application is refused and not touched, however it can be told."""
    plain(path, "CREATE TABLE emptied (x)", "DROP TABLE emptied", mark)
    content = path.read_bytes()
    with pytest.raises(StoreUnusable, match="of another application"):
        stores().open()
    assert path.read_bytes() == content


def test_newer_file_is_left_alone(stores, path):
    """A file of a newer release is refused, with both versions and what to do; it is not touched."""
    stores(schema=[*migrations(), LAST_WORD]).migrate()
    content = path.read_bytes()
    with pytest.raises(StoreUnusable, match=r"records.db has schema version 4, .* up to 3: upgrade retrysafe"):
        stores().open()
    assert path.read_bytes() == content
    assert plain(path, "SELECT count(*) FROM pragma_table_info('records') WHERE name = 'note'") == [(1,)]


def test_missing_folder_is_named(stores, tmp_path):
    """Where there is no folder, the message says so."""
    with pytest.raises(StoreUnavailable, match="No such file or directory; its folder must exist"):
        stores(path=tmp_path / "nowhere" / "records.db").open()


def test_folder_is_no_file(stores, tmp_path):
    """A folder cannot be opened, and the store can say so again and again."""
    store = stores(path=tmp_path)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="unable to open"):
            store.perform(Read(bytes(32)))


def test_store_recovers_when_the_file_does(stores, path):
    """What was unusable is tried anew with the next transition, and works once it is put right."""
    path.write_bytes(b"not a database, but in the way of one")
    store = stores()
    with pytest.raises(StoreUnusable):
        store.open()
    path.unlink()
    assert store.open()


def test_file_that_others_read_is_waited_for(stores, path):
    """SQLite does not wait for readers when a new file is to get its log; the store does, as long as for writers."""
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM sqlite_schema").fetchall()
    before_s = time.monotonic()
    with pytest.raises(StoreUnavailable, match="locked"):
        stores(busy_ms=100).open()
    assert time.monotonic() - before_s > 0.1
    reader.close()
    assert stores().open()


def test_file_that_is_being_made_is_no_strangers(stores, path, monkeypatch):
    """Another process makes the file just while this one looks whose it is: it sees all of that or nothing."""
    connect = sqlite3.connect
    tried: list[str] = []

    def make_it(statement):
        if "user_version" in statement and not tried:
            tried.append(statement)
            other = connect(path, isolation_level=None, timeout=0)
            with suppress(sqlite3.OperationalError):  # it has to wait until the look is over
                for step in (
                    "BEGIN IMMEDIATE",
                    *statements(migrations()[0].script),
                    "PRAGMA user_version = 1",
                    "COMMIT",
                ):
                    other.execute(step)
            other.close()

    def traced(*arguments, **options):
        connection = connect(*arguments, **options)
        connection.set_trace_callback(make_it)
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    assert stores().open()
    assert tried


# --- gone while it is open ----------------------------------------------------------------------


def remove(path):
    """The file alone; what SQLite keeps beside it stays."""
    path.unlink()


def remove_all(path):
    """The file and what is beside it."""
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def replace(path):
    """Another store takes the place of the file in one step."""
    other = SqliteStore(path.with_name("other.db"))
    other.open()
    other.close()
    path.with_name("other.db").replace(path)


@pytest.mark.parametrize("lose", [remove, remove_all, replace])
def test_file_that_is_gone_is_noticed(stores, path, lose):
    """Nothing is claimed, found or completed in a file that nobody else can see, until the store is opened again."""
    store = stores()
    store.open()
    claimed = claim(store)
    lose(path)
    there = sorted(path.parent.iterdir())
    for _ in range(3):
        with pytest.raises(StoreUnusable, match=r"records.db was removed or replaced while it was open; .* restart"):
            claim(store, claimed.record_id)
    with pytest.raises(StoreUnusable):
        store.perform(Read(claimed.record_id))
    with pytest.raises(StoreUnusable):
        store.perform(CompleteIfHeld(claimed, b"response", 60_000, 60_000))
    with pytest.raises(StoreUnusable):  # it was not closed
        store.open()
    assert set(path.parent.iterdir()) <= set(there)
    successor = stores()
    successor.open()
    assert claim(successor).attempt == 1
    with pytest.raises(StoreUnusable):  # though there is a file again, maybe with the number of the first
        claim(store)
    store.close()
    store.open()
    assert claim(store).attempt == 1


def test_file_that_is_gone_is_noticed_by_a_new_connection(stores, path):
    """A connection that failed is made anew, and not to another file."""
    store = stores(busy_ms=10)
    store.open()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable):  # and the connection is dropped
        claim(store)
    other.close()
    remove_all(path)
    with pytest.raises(StoreUnusable, match="removed or replaced"):
        claim(store)
    assert not path.exists()


# --- growing older ------------------------------------------------------------------------------


def test_upgrade_keeps_the_records(stores, path):
    """A newer release brings the schema up to date and finds what there was; the older runs on beside it."""
    before = stores()
    secret = before.open()
    held, other = claim(before), claim(before)
    after = stores(schema=[*migrations(), NOTE])
    assert after.open() == secret
    assert after.perform(CompleteIfHeld(held, b"response", 1_000, 1_000))
    assert before.perform(CompleteIfHeld(other, b"of the older", 1_000, 1_000))
    before.close()
    assert before.open() == secret
    assert plain(path, "SELECT note, response FROM records ORDER BY response DESC") == [
        ("from before", b"response"),
        ("from before", b"of the older"),
    ]


def test_migration_after_the_deployment_waits_for_an_operator(stores, path):
    """Opening leaves it; migrating goes through it, tells which it was, and then the older release is refused."""
    newer = stores(schema=[*migrations(), LAST_WORD])
    assert [migration.number for migration in newer.missing_migrations()] == [1, 2, 3, 4]
    assert not path.exists()
    newer.open()
    assert newer.missing_migrations() == newer.missing_migrations()
    assert [str(migration) for migration in newer.missing_migrations()] == [str(LAST_WORD)]
    older = stores()
    assert older.open()
    assert [str(migration) for migration in newer.migrate()] == [str(LAST_WORD)]
    assert newer.migrate() == newer.missing_migrations() == ()
    older.close()
    with pytest.raises(StoreUnusable, match="upgrade retrysafe"):
        older.open()
    assert newer.open()


def test_new_file_goes_through_every_migration(stores, path):
    """A file that is made by the newer release is the same as one that was upgraded."""
    stores(schema=[*migrations(), NOTE]).open()
    upgraded = path.with_name("upgraded.db")
    first = stores(path=upgraded)
    first.open()
    first.close()
    stores(path=upgraded, schema=[*migrations(), NOTE]).open()
    schemas = [plain(file, "SELECT type, name, sql FROM sqlite_schema ORDER BY name") for file in (path, upgraded)]
    assert schemas[0] == schemas[1]


def test_failed_upgrade_leaves_the_file_as_it_was(stores, path):
    """A migration that fails half-way is undone as a whole."""
    first = stores()
    held = claim(first)
    first.close()
    fails = Migration(NOTE.number + 1, "fails", "INSERT INTO nowhere VALUES (1);")
    with pytest.raises(StoreUnavailable, match="no such table: nowhere"):
        stores(schema=[*migrations(), NOTE, fails]).open()
    assert [missing.number for missing in stores(schema=[*migrations(), NOTE]).missing_migrations()] == [NOTE.number]
    assert stores().perform(Read(held.record_id)) is not None


# --- where it may be ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("/srv/records.db", "ext4"),
        ("/mnt/team files/deep/er/records.db", "nfs4"),
        ("/mnt/team/records.db", "tmpfs"),
        ("/mnt/shop/records.db", "cifs"),
        ("/mnt/shop/local/records.db", "xfs"),
        ("/mnt/shopping/records.db", "tmpfs"),
    ],
)
def test_file_system_is_that_of_the_nearest_mount(place, kind):
    """The deepest folder that is a mount point decides."""
    assert file_system_of(Path(place), MOUNTS.strip()) == kind


@pytest.mark.parametrize(
    ("kind", "refused"),
    [("nfs", True), ("nfs4", True), ("cifs", True), ("smb3", True), ("smbfs", True), ("ext4", False), ("btrfs", False)],
)
def test_network_file_systems_are_refused(path, tmp_path, kind, refused):
    """Where locks lie, the file is neither opened nor made, unless the operator insists."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"22 1 254:0 / / rw - ext4 /dev/vda rw\n30 22 0:26 / {tmp_path} rw - {kind} server:/export rw\n")
    file = SqliteFile(path, force=False, busy_ms=100, migrations=migrations(), mounts=mounts)
    if refused:
        with pytest.raises(StoreUnusable, match=rf"network file system \({kind}\)"):
            file.connect()
        assert not path.exists()
        file = SqliteFile(path, force=True, busy_ms=100, migrations=migrations(), mounts=mounts)
    file.connect().close()


# --- the log ------------------------------------------------------------------------------------


def fill(store, size_bytes):
    """Write responses of so many bytes in all, a quarter of a mebibyte each."""
    for _ in range(size_bytes >> 18):
        assert store.perform(CompleteIfHeld(claim(store), bytes(1 << 18), 1_000, 1_000))


def test_log_does_not_grow_without_bound(stores, path):
    """The log is brought back when it is long: ten times its limit goes through it."""
    store = stores()
    fill(store, 10 * CHECKPOINT_BYTES)
    assert path.with_name("records.db-wal").stat().st_size < CHECKPOINT_BYTES + (1 << 20)


def test_checkpoint_waits_for_nobody(path):
    """While another process writes, the log stays as it is; afterwards it is brought back."""
    file = SqliteFile(path, force=False, busy_ms=60_000, migrations=migrations())
    connection, other = file.connect(), file.connect()
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("CREATE TABLE filling (x)")
    connection.execute(f"INSERT INTO filling VALUES (zeroblob({2 * CHECKPOINT_BYTES}))")
    other.execute("BEGIN IMMEDIATE")
    file.checkpoint_if_due(connection)
    assert path.stat().st_size < CHECKPOINT_BYTES
    other.execute("ROLLBACK")
    file.checkpoint_if_due(connection)
    assert path.stat().st_size > CHECKPOINT_BYTES
    connection.close()
    other.close()


def test_nobody_begins_the_log_anew_during_a_checkpoint(path):
    """While the log is brought back, no other connection can write."""
    file = SqliteFile(path, force=False, busy_ms=0, migrations=migrations())
    connection, other = file.connect(), file.connect()
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("CREATE TABLE filling (x)")
    connection.execute(f"INSERT INTO filling VALUES (zeroblob({2 * CHECKPOINT_BYTES}))")
    tried = []

    def write(statement):
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        tried.append(statement)

    connection.set_trace_callback(write)
    file.checkpoint_if_due(connection)
    connection.set_trace_callback(None)
    assert tried == ["PRAGMA wal_checkpoint(PASSIVE)"]
    other.execute("BEGIN IMMEDIATE")
    connection.close()
    other.close()


def test_length_of_the_log_is_that_of_its_generation(tmp_path):
    """The log's file keeps its size when SQLite begins it anew; its length is then counted from the start."""
    path = tmp_path / "plain.db"
    log = f"{path}-wal"
    assert not log_reaches(log, 100_000)
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in ("PRAGMA journal_mode = WAL", "PRAGMA wal_autocheckpoint = 0", "CREATE TABLE t (x)"):
        connection.execute(statement)
    assert not log_reaches(log, 100_000)
    connection.execute("INSERT INTO t VALUES (zeroblob(200000))")
    assert log_reaches(log, 100_000)
    assert connection.execute("PRAGMA wal_checkpoint").fetchone()[0] == 0
    connection.execute("INSERT INTO t VALUES (1)")
    assert Path(log).stat().st_size > 200_000
    assert not log_reaches(log, 100_000)
    connection.execute("INSERT INTO t VALUES (zeroblob(200000))")
    assert log_reaches(log, 100_000)
    connection.close()


# --- the clock ----------------------------------------------------------------------------------


def test_clock_that_is_behind_is_noticed_once(stores, path, caplog):
    """A file that was written at a time more than a minute ahead of the host's clock is worth one warning."""
    clock = ManualClock()
    ahead = stores(clock=clock)
    claim(ahead)
    ahead.close()
    clock.advance(-3_600_000)
    behind = stores(clock=clock, busy_ms=10)
    with caplog.at_level(logging.WARNING, "retrysafe.stores.sqlite"):
        behind.open()
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable):  # and the connection is made anew
            claim(behind)
        other.close()
        claim(behind)
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert "3600 s ahead of this host's clock" in warnings[0]


def test_clock_that_is_a_little_behind_is_not(stores, caplog):
    """Up to a minute is nothing to worry about."""
    clock = ManualClock()
    claim(stores(clock=clock))
    clock.advance(-60_000)
    claim(stores(clock=clock))
    assert not caplog.records
