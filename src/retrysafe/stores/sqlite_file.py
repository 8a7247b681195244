"""One SQLite file: may it be used, is it ours, and how a connection to it is set up.

Durable means durable: a write-ahead log with `synchronous=FULL`, so that what was committed survives
a loss of power; with NORMAL it would not. Refused are network file systems, whose locks lie, files of
others, which stay as they are, and files of a newer release.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from retrysafe.errors import StoreUnavailable, StoreUnusable
from retrysafe.stores.migrations import Migration, due, migrations_of, needed

T = TypeVar("T")

APPLICATION_ID = 0x72747279  # "rtry", as set by the first migration
MODE = 0o600  # the file may hold the secret, and holds what applications answered
NETWORK_FILE_SYSTEMS = re.compile(r"nfs\d*|cifs|smb\w*")

# Before this release a checkpoint could miss that another connection began the log anew in the same moment,
# and later checkpoints then skipped what was committed (https://sqlite.org/wal.html#walresetbug). So SQLite
# makes none by itself, and ours hold the right to write.
CHECKPOINTS_SAFE_SINCE = (3, 51, 3)
CHECKPOINT_BYTES = 4 << 20

_POLL_S = 0.01
_CREATING = threading.Lock()


def migrations() -> tuple[Migration, ...]:
    """The schema, as migrations in the order in which a file goes through them."""
    return migrations_of("sqlite")


def _whole(known: Sequence[Migration], migration: Migration) -> str:
    """The statements of a migration, and those by which the file knows afterwards that it has gone through it."""
    number = migration.number
    counted = ""
    if number > 1:  # the second makes the column
        counted = f"UPDATE meta SET migrations = {number};\n"  # noqa: S608 - a number of this package
    must_know = f"PRAGMA user_version = {needed(known, number)};\n"
    return f"{migration.script.rstrip()}\n{counted}{must_know}"


def all_statements() -> Iterator[str]:
    """What makes the tables in a file that has others already: for one transaction, by whom that file belongs to.

    The store itself takes no file of others; from then on it takes this one for its own.
    """
    known = migrations()
    for migration in known:
        yield from statements(_whole(known, migration))


class Identity:
    """Which file the path led to when it was first connected to.

    A connection goes on with its file when that is removed or replaced, and a new one would begin with
    another: both would run again what was recorded in the first.
    """

    __slots__ = ("_lost", "_seen")

    def __init__(self) -> None:
        self._seen: tuple[int, int] | None = None
        self._lost = False  # kept, because a file that is made anew may get the number of the one before

    def check(self, path: Path) -> None:
        """Is it still that file?

        Raises:
            StoreUnusable: it is not; nor is it ever again.
        """
        if self._seen is None:
            return
        if not self._lost:
            try:
                self._lost = _number(path) != self._seen
            except FileNotFoundError:
                self._lost = True
        if self._lost:
            raise StoreUnusable(
                f"{path} was removed or replaced while it was open; what it recorded is not in another file: "
                "put the file back if you can, and restart every process that uses it"
            )

    def remember(self, number: tuple[int, int]) -> None:
        """Take this for the file, unless there is one already."""
        self._seen = self._seen or number


def _number(path: Path) -> tuple[int, int]:
    found = os.stat(path)  # noqa: PTH116 - before every transaction, and half the cost of Path.stat
    return found.st_dev, found.st_ino


@dataclass(frozen=True, slots=True)
class SqliteFile:
    """Where the records are, and how to connect to it.

    Attributes:
        path: absolute, symbolic links resolved: SQLite names its own files after that one.
        force: use it even on a network file system.
        busy_ms: how long to wait for another process that is writing.
        migrations: the schema that this release knows.
        mounts: where Linux says which file systems there are.
        identity: which file it is, once that is known; over all connections until the store is closed.
    """

    path: Path
    force: bool
    busy_ms: int
    migrations: Sequence[Migration]
    mounts: Path = Path("/proc/self/mountinfo")
    identity: Identity = field(default_factory=Identity, compare=False)

    def connect(self) -> sqlite3.Connection:
        """A connection that is ready for use, its schema brought up to date.

        Raises:
            StoreUnusable: the file is another's, or newer, or in an unsafe place, or no longer the one that
                it was. It was not changed.
            StoreUnavailable: it cannot be opened.
            sqlite3.Error: the same, from SQLite itself.
        """
        if not self.force:
            self._refuse_network()
        self.identity.check(self.path)
        self._create()
        number = _number(self.path)  # before it is opened: if it is replaced in between, the next check tells
        connection = self._connect(self.busy_ms)
        try:
            connection.execute("BEGIN")  # what is read about the file is to be from one moment
            gone = self._gone_through(connection)
            connection.execute("COMMIT")
            self._configure(connection)
            if gone < due(self.migrations):
                self._upgrade(connection, due(self.migrations))
        except BaseException:
            connection.close()
            raise
        self.identity.remember(number)
        return connection

    def missing(self) -> tuple[Migration, ...]:
        """The migrations that the file has not gone through, of those that this release knows. Changes nothing.

        Raises:
            as `connect`.
        """
        if not self.path.exists():
            gone = 0
        else:
            connection = self._connect(self.busy_ms)
            try:
                connection.execute("BEGIN")
                gone = self._gone_through(connection)
            finally:
                connection.close()
        return tuple(
            replace(migration, script=f"BEGIN IMMEDIATE;\n{self._script(migration)}COMMIT;\n")
            for migration in self.migrations[gone:]
        )

    def migrate(self) -> tuple[Migration, ...]:
        """Go through every migration that is known, those after the deployment too; answered by those missing.

        Raises:
            as `connect`.
        """
        missing = self.missing()
        connection = self.connect()
        try:
            self._upgrade(connection, len(self.migrations))
        finally:
            connection.close()
        return missing

    def checkpoint_if_due(self, connection: sqlite3.Connection) -> None:
        """Bring the log back into the database if it is long, as far as no reader still needs it.

        Meanwhile a second connection holds the right to write, so that nobody begins the log anew. If
        another process has that right now, it is left for the next time.
        """
        if not log_reaches(f"{self.path}-wal", CHECKPOINT_BYTES):
            return
        guard = self._connect(busy_ms=0)
        try:
            guard.execute("BEGIN IMMEDIATE")
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.OperationalError as error:
            if not _is_busy(error):
                raise
        finally:
            guard.close()

    def _connect(self, busy_ms: int) -> sqlite3.Connection:
        uri = f"{self.path.as_uri()}?mode=rw"
        return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=busy_ms / 1_000)

    def _refuse_network(self) -> None:
        try:
            mounts = self.mounts.read_text("utf-8", "surrogateescape")
        except OSError:  # not Linux
            return
        kind = file_system_of(self.path, mounts)
        if NETWORK_FILE_SYSTEMS.fullmatch(kind):
            raise StoreUnusable(
                f"{self.path} is on a network file system ({kind}), where SQLite's locks do not hold: "
                "put it on a local disk, or use force=true if only one host ever opens it"
            )

    def _create(self) -> None:
        """Make the file if there is none, for this user only.

        An existing one is never opened here: closing any descriptor of it would drop the locks that
        SQLite holds on it elsewhere in this process.
        """
        with _CREATING:
            try:
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, MODE))
            except FileExistsError:
                return
            except OSError as error:
                raise StoreUnavailable(
                    f"{self.path} cannot be created: {error.strerror}; its folder must exist and be writable"
                ) from error

    def _gone_through(self, connection: sqlite3.Connection) -> int:
        """How many migrations the file has gone through; 0 if it is new."""
        try:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (must_know,) = connection.execute("PRAGMA user_version").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
                raise StoreUnusable(f"{self.path} is not an SQLite database; name another file") from error
            raise
        if application != APPLICATION_ID and (application or must_know or tables):
            raise StoreUnusable(f"{self.path} is the database of another application; name another file")
        if must_know > len(self.migrations):
            raise StoreUnusable(
                f"{self.path} has schema version {must_know}, and this release knows versions up to "
                f"{len(self.migrations)}: upgrade retrysafe"
            )
        (counted,) = connection.execute(
            "SELECT count(*) FROM pragma_table_info('meta') WHERE name = 'migrations'"
        ).fetchone()
        if not counted:
            return int(must_know)
        ((gone,),) = connection.execute("SELECT migrations FROM meta").fetchall()
        return int(gone)

    def _configure(self, connection: sqlite3.Connection) -> None:
        # SQLite does not wait for other connections when it switches to WAL, so this does.
        (mode,) = self._patiently(lambda: connection.execute("PRAGMA journal_mode = WAL").fetchone())
        if mode != "wal":
            raise StoreUnusable(f"{self.path} cannot use a write-ahead log ({mode}); put it on a local disk")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")  # only macOS knows the difference
        connection.execute("PRAGMA secure_delete = ON")  # a response that was deleted or encrypted is to be gone
        if sqlite3.sqlite_version_info < CHECKPOINTS_SAFE_SINCE:
            connection.execute("PRAGMA wal_autocheckpoint = 0")

    def _upgrade(self, connection: sqlite3.Connection, last: int) -> None:
        """Go through what is missing up to a migration, in one transaction; of processes that start together, one."""
        connection.execute("BEGIN IMMEDIATE")
        gone = self._gone_through(connection)
        for migration in self.migrations[gone:last]:
            for statement in statements(self._script(migration)):
                connection.execute(statement)
        connection.execute("COMMIT")

    def _script(self, migration: Migration) -> str:
        return _whole(self.migrations, migration)

    def _patiently(self, action: Callable[[], T]) -> T:
        """Repeat what fails because the file is busy, for as long as SQLite itself would wait."""
        give_up_s = time.monotonic() + self.busy_ms / 1_000
        while True:
            try:
                return action()
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() > give_up_s:
                    raise
            time.sleep(_POLL_S)  # noqa: TID251 a poll with a bound: SQLite has no event for this


def _is_busy(error: sqlite3.Error) -> bool:
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY  # of which there are several kinds


def log_reaches(path: str, size_bytes: int) -> bool:
    """Has the write-ahead log of this generation grown to that size?

    The size of its file does not say: SQLite writes it anew from the start and never shortens it. But
    a frame belongs to this generation if it carries the salt of the log's header, and frames are
    written in order; so one look at the frame at that size tells. (SQLite locks the database and the
    index beside it, not this file; to open and close it drops no locks.)
    """
    try:
        log = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        header = os.pread(log, 32, 0)
        frame_bytes = 24 + int.from_bytes(header[8:12], "big")
        frame = os.pread(log, 24, 32 + size_bytes // frame_bytes * frame_bytes)
    finally:
        os.close(log)
    return len(frame) == 24 and frame[8:16] == header[16:24]


def statements(script: str) -> Iterator[str]:
    """The statements of an SQL script, one by one: so they can share a transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def file_system_of(path: Path, mountinfo: str) -> str:
    """The kind of file system that holds `path`, by the text of Linux' /proc/self/mountinfo; "" if unknown."""
    mounts = {}
    for line in mountinfo.splitlines():
        place, _, rest = line.partition(" - ")
        # later mounts hide earlier ones; blanks in names are written in octal
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), place.split(" ")[4])
        mounts[Path(point)] = rest.split(" ")[0]
    return next((mounts[folder] for folder in path.parents if folder in mounts), "")
