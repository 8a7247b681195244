"""What a client has sent and not yet heard about, in a file: no crash makes it forget a key (contract R85).

An entry is durable before the first byte of its request leaves, and stands until the server has said how it ended. Of
an operation with a name its key is remembered on, until the key's lifetime is over: a process that died after the
answer, and before it had noted it, does everything again, and must not do it under another key.

One file serves any number of threads and processes on one host.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self

from retrysafe.client.entry import Asked, Entry, kept_fields, read, written
from retrysafe.client.holder import Holder, is_alive
from retrysafe.client.run import wall_clock_s
from retrysafe.errors import CallerError, StoreUnavailable, StoreUnusable
from retrysafe.protocol.framing import frame
from retrysafe.protocol.snapshot import Encryption, Kind, Unreadable
from retrysafe.value import value

APPLICATION_ID = 0x7274636A  # "rtcj"
_BUSY_S = 10.0
_NOBODY = ""

# `place` is what an operation is found by: its name, or a key that the caller brought. An entry that is settled keeps
# its place only for the sake of its key.
_SCHEMA = f"""
CREATE TABLE entries (
    id BLOB PRIMARY KEY,
    place BLOB UNIQUE,
    holder TEXT NOT NULL,
    settled INTEGER NOT NULL,
    ends_at_s REAL NOT NULL,
    encrypted INTEGER NOT NULL,
    content BLOB NOT NULL
);
CREATE INDEX entries_settled ON entries (ends_at_s) WHERE settled;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = 1;
"""


class IntentChanged(CallerError):
    """An earlier call of this intent is not settled, and this one asks for something else. Nothing was sent. Find out
    how the earlier one ended with resume(), then decide.
    """


@value
class Wish:
    """What an operation is called, and the key that it gets if it is new.

    Attributes:
        name: of the intent; empty if there is none.
        key: as it is sent.
        own: the key is the caller's, and finds the operation.
        header: the field that carries it.
        lifetime_s: for how long the server knows the key.
    """

    name: str
    key: str
    own: bool
    header: str
    lifetime_s: float


class Journal:
    """Operations that are not settled, in one SQLite file.

    Args:
        path: of the file; made if there is none. Beside it stands a folder with locks, `PATH.holders`.
        encryption_keys: what requests are encrypted with, as for stored answers; the first encrypts, all decrypt. Only
            with them are credentials kept; without, `resume` must be given them.

    Raises:
        ConfigurationError: a key is none, or the extra `crypto` is missing.
        StoreUnusable: the file is something else, or of a newer release.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, encryption_keys: str | bytes | Sequence[str | bytes] | None = None
    ) -> None:
        self._encryption = _ring(encryption_keys)
        self._path = Path(path).resolve()
        self._folder = self._path.with_name(f"{self._path.name}.holders")
        self._lock = threading.Lock()
        self._busy: dict[bytes, int] = {}
        self._open()

    # --- for transports ---------------------------------------------------------------------------

    def begin(self, asked: Asked, wish: Wish) -> tuple[Entry, bool]:
        """Write an operation down, durably, before its first attempt; or find the one that this is a repetition of.

        Args:
            asked: its request.
            wish: whose it is, and the key that it gets if it is new.

        Returns:
            The entry, and whether its key may have been sent before.

        Raises:
            IntentChanged: the same intent is not settled, and was another request.
        """
        place, digest = _place(asked, wish), asked.digest()
        with self._transaction() as sql:
            found = self._found(sql, place)
            if found is not None:
                entry, settled = found
                if entry.digest == digest and not (settled and entry.ends_at_s <= wall_clock_s()):
                    self._write(sql, replace(entry, asked=self._kept(asked)), place)
                    return entry, True
                if not settled:
                    raise IntentChanged
                sql.execute("DELETE FROM entries WHERE id = ?", (entry.id,))
            now_s = wall_clock_s()
            sql.execute("DELETE FROM entries WHERE settled AND ends_at_s <= ?", (now_s,))
            name = "" if wish.own else wish.name
            entry = Entry(
                uuid.uuid4().bytes, name, wish.key, wish.header, self._kept(asked), digest, now_s, wish.lifetime_s
            )
            self._write(sql, entry, place)
            return entry, wish.own

    def again(self, entry: Entry, asked: Asked, wish: Wish) -> None:
        """Go on with an operation that this process has begun: it was redirected, or has to be authenticated."""
        place = _place(entry.asked, wish)
        with self._transaction() as sql:
            found = self._found(sql, place)
            taken = found is not None and found[0].id != entry.id  # somebody began the same intent meanwhile
            self._write(sql, replace(entry, asked=self._kept(asked)), None if taken else place)

    def settle(self, entry: Entry) -> None:
        """The server has said how it ended: nothing is sent again. The key of a name is remembered."""
        nothing = replace(entry.asked, headers=(), content=b"")
        with self._transaction() as sql:
            if entry.name:
                content = self._sealed(replace(entry, asked=nothing))
                sql.execute(
                    "UPDATE entries SET settled = 1, holder = ?, encrypted = ?, content = ? WHERE id = ?",
                    (_NOBODY, self._encryption is not None, content, entry.id),
                )
            else:
                sql.execute("DELETE FROM entries WHERE id = ?", (entry.id,))
        self._rest(entry)

    def drop(self, entry: Entry) -> None:
        """It is known that nothing was done, and whoever asked for it has been told so."""
        with self._transaction() as sql:
            sql.execute("DELETE FROM entries WHERE id = ? AND NOT settled", (entry.id,))
        self._rest(entry)

    def leave(self, entry: Entry) -> None:
        """Nobody knows how it ended; this call is over."""
        if self._rest(entry):
            return
        with self._transaction() as sql:
            mine = (_NOBODY, entry.id, self._holder.name)
            sql.execute("UPDATE entries SET holder = ? WHERE id = ? AND holder = ?", mine)

    # --- for people and their jobs ----------------------------------------------------------------

    def unsettled(self) -> list[Entry]:
        """The operations of which nobody knows how they ended, oldest first; those at work among them."""
        with self._transaction() as sql:
            rows = sql.execute("SELECT id, encrypted, content FROM entries WHERE NOT settled").fetchall()
        return sorted((self._entry(*row) for row in rows), key=lambda entry: entry.created_at_s)

    def take(self, entry: Entry) -> bool:
        """Become the one who settles an entry, unless somebody is at work on it, here or in another process."""
        with self._transaction() as sql:
            row = sql.execute("SELECT holder FROM entries WHERE id = ? AND NOT settled", (entry.id,)).fetchone()
            if row is None or self._busy.get(entry.id) or self._is_others(row[0]):
                return False
            sql.execute("UPDATE entries SET holder = ? WHERE id = ?", (self._holder.name, entry.id))
            self._busy[entry.id] = 1
            return True

    def forget(self, entry: Entry) -> None:
        """Strike out an operation: somebody found out by other means how it ended."""
        with self._transaction() as sql:
            sql.execute("DELETE FROM entries WHERE id = ?", (entry.id,))

    def close(self) -> None:
        """Close the file. What is not settled stays."""
        with self._lock:
            self._connection.close()
            self._holder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- inside -----------------------------------------------------------------------------------

    def _open(self) -> None:
        self._pid = os.getpid()
        self._connection = _connected(self._path)
        self._holder = Holder(self._folder)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._pid != os.getpid():  # SQLite must not be used over a fork; nothing of the parent's is ours
                self._inherited = self._connection
                self._holder.close(forked=True)
                self._busy.clear()
                self._open()
            busy = dict(self._busy)
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                    self._connection.execute("COMMIT")
                except BaseException:
                    self._busy = busy  # what was not written is not at work
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise StoreUnavailable(f"the journal of the client cannot be used now: {error}") from error

    def _write(self, sql: sqlite3.Connection, entry: Entry, place: bytes | None) -> None:
        """Durable with the end of the transaction; from then on it is this process that is at work on it."""
        row = (self._holder.name, entry.ends_at_s, self._encryption is not None, self._sealed(entry))
        sql.execute(
            "INSERT INTO entries (id, place, settled, holder, ends_at_s, encrypted, content)"
            " VALUES (?, ?, 0, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET settled = 0, holder = excluded.holder, ends_at_s = excluded.ends_at_s,"
            " encrypted = excluded.encrypted, content = excluded.content",
            (entry.id, place, *row),
        )
        self._busy[entry.id] = self._busy.get(entry.id, 0) + 1

    def _rest(self, entry: Entry) -> bool:
        """One call less is at work on it; whether another one still is."""
        with self._lock:
            left = self._busy.get(entry.id, 1) - 1
            if left > 0:
                self._busy[entry.id] = left
            else:
                self._busy.pop(entry.id, None)
            return left > 0

    def _is_others(self, holder: str) -> bool:
        return holder not in (_NOBODY, self._holder.name) and is_alive(self._folder, holder)

    def _found(self, sql: sqlite3.Connection, place: bytes | None) -> tuple[Entry, bool] | None:
        if place is None:
            return None
        row = sql.execute("SELECT id, encrypted, content, settled FROM entries WHERE place = ?", (place,)).fetchone()
        return None if row is None else (self._entry(*row[:3]), bool(row[3]))

    def _kept(self, asked: Asked) -> Asked:
        return replace(asked, headers=kept_fields(asked.headers, secrets=self._encryption is not None))

    def _sealed(self, entry: Entry) -> bytes:
        document = written(entry)
        return document if self._encryption is None else self._encryption.encrypt(document, entry.id, Kind.REQUEST)

    def _entry(self, entry_id: bytes, encrypted: int, content: bytes) -> Entry:
        if not encrypted:
            return read(entry_id, content)
        if self._encryption is None:
            raise Unreadable("the journal of the client is encrypted: give its encryption_keys")
        return read(entry_id, self._encryption.decrypt(content, entry_id, Kind.REQUEST))


def _place(asked: Asked, wish: Wish) -> bytes | None:
    if wish.own:
        parts: tuple[str, ...] = ("key", wish.key)
    elif wish.name:
        parts = ("intent", wish.name, asked.method, asked.url)
    else:
        return None
    return hashlib.sha256(frame(*(part.encode() for part in parts))).digest()


def _ring(keys: str | bytes | Sequence[str | bytes] | None) -> Encryption | None:
    if keys is None:
        return None
    from retrysafe.encryption import key_ring  # noqa: PLC0415 - an extra, needed only with keys

    return key_ring(keys)


def _connected(path: Path) -> sqlite3.Connection:
    """A connection to the file, which is made if there is none.

    A rollback journal with `synchronous=EXTRA` survives a loss of power at every point, in every release of SQLite.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # what it holds is nobody else's to read
    except OSError as error:
        raise StoreUnusable(f"{path} cannot be a client's journal: {error.strerror}") from error
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA synchronous = EXTRA")
        connection.execute("BEGIN IMMEDIATE")
        _prepare(connection, path)
        connection.execute("COMMIT")
    except sqlite3.DatabaseError as error:
        connection.close()
        raise StoreUnusable(f"{path} cannot be a client's journal: {error}") from error
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    def number(pragma: str) -> int:
        found: int = connection.execute(f"PRAGMA {pragma}").fetchone()[0]
        return found

    if number("schema_version") == 0:
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
    elif number("application_id") != APPLICATION_ID:
        raise StoreUnusable(f"{path} is not a client's journal: name another file")
    elif number("user_version") != 1:
        raise StoreUnusable(f"{path} was written by a newer release: use that, or name another file")
