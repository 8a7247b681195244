"""What a `Content-Length` says: how long a content is, and when a response is complete before its handler says so."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

_BODILESS = frozenset({204, 205, 304})


def number_in(line: str | bytes) -> int | None:
    """The number that a client wrote; None if it is none, or has more digits than anything can be read of."""
    if line.isascii() and line.isdigit():  # there are digits beyond ASCII of which no number can be made
        with suppress(ValueError):
            return int(line)
    return None


class Length:
    """Counts a content against the length that its head declares. It complains of nothing."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left: int | None = None

    def start(self, status: int, headers: Iterable[Any]) -> None:
        """The head. A client has the whole of an answer that can have no content with it."""
        self._left = 0 if status in _BODILESS else _declared(headers)

    def reached(self, piece: Any) -> bool:
        """Whether this piece completes the content."""
        if self._left is None:
            return False
        self._left -= len(piece or b"")
        return self._left <= 0


def _declared(headers: Iterable[Any]) -> int | None:
    try:
        lines = [line for name, line in headers if name.lower() in (b"content-length", "content-length")]
        return int(lines[0]) if lines else None
    except (TypeError, ValueError, AttributeError):
        return None
