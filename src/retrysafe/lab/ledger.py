"""A file that keeps what happened outside of the system that is proved, whoever dies in the middle of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from retrysafe.lab.evidence import Event, as_line


class Ledger:
    """Lines of evidence, each on the disk before `write` returns. Any number of processes may write into one file.

    Args:
        path: of the file, which is made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_bytes = 0

    def write(self, event: Event) -> None:
        """Append one line, in one write that no other process can split, and wait for the disk."""
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, f"{as_line(event)}\n".encode())
            os.fsync(file)
        finally:
            os.close(file)

    def news(self) -> Sequence[str]:
        """The lines that were written since the last look; one that is being written is left for the next."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read_bytes)
                content = file.read()
        except FileNotFoundError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        return whole.decode().splitlines(keepends=True)
