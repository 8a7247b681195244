"""Request contents: in memory while small, in an unnamed file beyond that."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator

from retrysafe.model import Body, BytesBody

MEMORY_BYTES_MAX = 1 << 20
CHUNK_BYTES = 64 << 10


class SpooledBody:
    """Content in a file that has no name and ends with this object."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed with this object
        self._size = 0

    def __del__(self) -> None:
        self._file.close()

    def append(self, pieces: Iterable[bytes]) -> None:
        """Write more at the end."""
        for piece in pieces:
            left = memoryview(piece)
            while left:
                left = left[os.write(self._file.fileno(), left) :]
            self._size += len(piece)

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self._size

    def chunks(self) -> Iterator[bytes]:
        """The content from its start; several readers do not disturb each other."""
        for at in range(0, self._size, CHUNK_BYTES):
            yield os.pread(self._file.fileno(), CHUNK_BYTES, at)

    def read(self) -> bytes:
        """The content as one string of bytes."""
        return b"".join(self.chunks())


class Spool:
    """Collects a content as it arrives.

    Args:
        body_bytes_max: more than this is refused.
    """

    def __init__(self, body_bytes_max: int) -> None:
        self._body_bytes_max = body_bytes_max
        self._pieces: list[bytes] = []
        self._spooled: SpooledBody | None = None
        self.size = 0

    @property
    def full(self) -> bool:
        """More arrived than is allowed."""
        return self.size > self._body_bytes_max

    def writes(self, piece: bytes) -> bool:
        """Whether `add(piece)` writes to a file; then a caller with a loop to look after uses a thread."""
        return MEMORY_BYTES_MAX < self.size + len(piece) <= self._body_bytes_max

    def add(self, piece: bytes) -> None:
        """Take the next piece; nothing is kept once the spool is full."""
        self.size += len(piece)
        if self.full:
            self._pieces.clear()
            self._spooled = None
        elif self.size <= MEMORY_BYTES_MAX:
            self._pieces.append(piece)
        else:
            if self._spooled is None:
                self._spooled = SpooledBody()
            self._spooled.append((*self._pieces, piece))
            self._pieces.clear()

    def body(self) -> Body:
        """What was collected."""
        if self._spooled is not None:
            return self._spooled
        return BytesBody(self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces))
