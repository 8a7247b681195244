"""A disk that loses its power: what SQLite asked of it, and what might be on it if it had stopped at any moment.

The store's own code runs, its pragmas, plans and statements, over a connection of `apsw`, whose VFS lets the
real files be written and keeps a list of what was asked. An image is made from the list up to some moment. What
was synced by then is on the disk. Of each later write every sector is there, or is not, or is garbage; a file
whose folder was not synced may not be there at all. The index in shared memory is always gone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from retrysafe.stores.sqlite_file import SqliteFile

SECTOR_BYTES = 512


class Written(NamedTuple):
    """Bytes for a place in a file."""

    file: str
    offset: int
    content: bytes


class Cut(NamedTuple):
    """A file is made this long."""

    file: str
    size: int


class Synced(NamedTuple):
    """What was asked for this file is on the disk from here on."""

    file: str


class Created(NamedTuple):
    """A file that was not there is opened."""

    file: str


class Deleted(NamedTuple):
    """A file is removed, and whether its folder is synced with that."""

    file: str
    durably: bool


Asked = Written | Cut | Synced | Created | Deleted


class _LoggedFile(apsw.VFSFile):
    def __init__(self, inherit: str, filename: Any, flags: list[int], log: list[Asked]) -> None:
        super().__init__(inherit, filename, flags)
        name = filename.filename() if isinstance(filename, apsw.URIFilename) else filename
        self._name = Path(name).name
        self._log = log

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802 - SQLite's name
        super().xWrite(data, offset)
        self._log.append(Written(self._name, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 - SQLite's name
        super().xTruncate(newsize)
        self._log.append(Cut(self._name, newsize))

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        super().xSync(flags)
        self._log.append(Synced(self._name))


class Disk(apsw.VFS):
    """Files in a real folder, and everything that was asked of them.

    Args:
        name: of the VFS, one for each disk.
        synchronous: what the store's own setting is exchanged for; None leaves it as it is.
    """

    def __init__(self, name: str, synchronous: str | None = None) -> None:
        self.name = name
        self.synchronous = synchronous
        self.asked: list[Asked] = []
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> _LoggedFile:  # noqa: N802 - SQLite's name
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        is_new = path is not None and not Path(path).exists()
        file = _LoggedFile("", name, flags, self.asked)
        if is_new:
            self.asked.append(Created(Path(path).name))
        return file

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802 - SQLite's name
        super().xDelete(filename, syncdir)
        self.asked.append(Deleted(Path(filename).name, durably=bool(syncdir)))


class _Rows:
    """A cursor, with what the store asks of one."""

    def __init__(self, cursor: Any, rowcount: int) -> None:
        self.fetchone, self.fetchall = cursor.fetchone, cursor.fetchall
        self.rowcount = rowcount


class _Connection:
    """A connection of `apsw`, with what the store asks of one of the standard library's."""

    def __init__(self, path: Path, busy_ms: int, disk: Disk) -> None:
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI
        self._inner = apsw.Connection(f"{path.as_uri()}?mode=rw", flags=flags, vfs=disk.name)
        self._inner.set_busy_timeout(busy_ms)
        self._disk = disk
        self.close = self._inner.close

    @property
    def in_transaction(self) -> bool:
        return self._inner.in_transaction

    def execute(self, statement: str, values: Any = None) -> _Rows:
        if self._disk.synchronous and statement.startswith("PRAGMA synchronous"):
            statement = f"PRAGMA synchronous = {self._disk.synchronous}"
        before = self._inner.total_changes()
        cursor = self._inner.execute(statement, values)
        return _Rows(cursor, self._inner.total_changes() - before)


@dataclass(frozen=True, slots=True)
class FileOnDisk(SqliteFile):
    """The store's file, whose connections go through the disk; all else is as it is."""

    disk: Disk | None = field(default=None, compare=False)

    def _connect(self, busy_ms: int) -> Any:
        assert self.disk is not None
        return _Connection(self.path, busy_ms, self.disk)


# --- what is on the disk afterwards -------------------------------------------------------------


class Luck:
    """What a loss of power leaves of what was not synced.

    Args:
        chance: decides.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._kept = chance.choice((0.0, 0.1, 0.5, 0.9, 1.0))  # of sectors and files, on this occasion
        self._garbled = chance.choice((0.0, 0.0, 0.2))  # of sectors that were under way

    def keeps(self) -> bool:
        """Whether something came to pass."""
        return self._chance.random() < self._kept

    def write(self, content: bytearray, write: Written) -> None:
        """Let some sectors of a write come to pass."""
        end = write.offset + len(write.content)
        for start in range(write.offset - write.offset % SECTOR_BYTES, end, SECTOR_BYTES):
            first, last = max(start, write.offset), min(start + SECTOR_BYTES, end)
            if self._chance.random() < self._garbled:
                _put(content, first, self._chance.randbytes(last - first))
            elif self.keeps():
                _put(content, first, write.content[first - write.offset : last - write.offset])


def _put(content: bytearray, offset: int, piece: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(piece)] = piece


def image(asked: Sequence[Asked], main: str, luck: Luck) -> dict[str, bytes]:
    """The files that are there after the power was cut when all of this had been asked.

    Args:
        asked: what was asked of the disk, from the start.
        main: the database file, which the store itself creates before it opens it.
        luck: decides about everything that was not synced.
    """
    platter = _Platter(main)
    for one in asked:
        platter.take(one)
    return platter.found(luck)


class _Platter:
    """What is on the disk for certain, and what may be."""

    def __init__(self, main: str) -> None:
        self._main = main
        self._durable: dict[str, bytearray] = {}
        self._pending: dict[str, list[Written | Cut]] = {main: []}  # asked since, of files that are there
        self._unsure = {main}  # whether their name is on the disk is open
        self._removed: dict[str, bytearray] = {}  # there still, if their removal did not come to pass

    def take(self, one: Asked) -> None:
        match one:
            case Created(file):
                self._durable.pop(file, None)
                self._pending[file] = []
                self._unsure.add(file)
            case Written(file) | Cut(file):
                self._pending.setdefault(file, []).append(one)
            case Synced(file):
                self._durable[file] = _applied(self._durable.get(file, bytearray()), self._pending[file])
                self._pending[file] = []
                if file != self._main and file in self._unsure:  # SQLite syncs the folder with a new log or journal
                    self._sync_folder()
            case Deleted(file, durably):
                self._delete(file, durably=durably)

    def _delete(self, file: str, *, durably: bool) -> None:
        content = self._durable.pop(file, bytearray())
        self._pending.pop(file, None)
        if durably:
            self._sync_folder()
        elif file not in self._unsure:
            self._removed[file] = content
        self._unsure.discard(file)

    def _sync_folder(self) -> None:
        self._unsure.clear()
        self._removed.clear()

    def found(self, luck: Luck) -> dict[str, bytes]:
        files = {name: bytes(content) for name, content in self._removed.items() if not luck.keeps()}
        for name, writes in self._pending.items():
            if name not in self._unsure or luck.keeps():
                files[name] = bytes(_lucky(self._durable.get(name, bytearray()), writes, luck))
        return files


def _applied(content: bytearray, writes: Sequence[Written | Cut]) -> bytearray:
    content = bytearray(content)
    for one in writes:
        if isinstance(one, Written):
            _put(content, one.offset, one.content)
        else:
            del content[one.size :]
    return content


def _lucky(content: bytearray, writes: Sequence[Written | Cut], luck: Luck) -> bytearray:
    content = bytearray(content)
    for one in writes:
        if isinstance(one, Written):
            luck.write(content, one)
        elif luck.keeps():
            del content[one.size :]
    return content
