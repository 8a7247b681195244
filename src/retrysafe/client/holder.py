"""Who is at work on an entry of a journal: processes, told apart by a lock that ends with its process.

A lease would need clocks, and would end under a process that is only slow. The system gives up a file lock at the
moment in which its process dies, however it dies, and not before.
"""

from __future__ import annotations

import fcntl
import os
import re
import uuid
from contextlib import suppress
from pathlib import Path

_NAME = re.compile(r"[0-9a-f]{32}")


class Holder:
    """This process, as entries name it.

    Args:
        folder: where the locks are; made if there is none.

    Attributes:
        name: unique, and never used again.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self.name = uuid.uuid4().hex
        self._path = folder / self.name
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)  # before any entry names it, so that nobody finds it unlocked

    def close(self, *, forked: bool = False) -> None:
        """Give up the lock; a fork only lets go of what it inherited."""
        if not forked:
            self._path.unlink(missing_ok=True)
        os.close(self._file)


def is_alive(folder: Path, name: str) -> bool:
    """Whether the process of that name still runs."""
    if not _NAME.fullmatch(name):
        return False
    try:
        file = os.open(folder / name, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    with suppress(FileNotFoundError):
        (folder / name).unlink()
    return False
