"""What a proxy has to know of a protocol: where a request ends, and where its answer does.

That is what a fault is about: before the last byte of a request nothing can have happened, behind it everything can.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from retrysafe.faults.fault import Fault

HEAD_BYTES_MAX = 256 * 1024
PIECE_BYTES_MAX = 65_536


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sends in one go.

    Attributes:
        content: the bytes.
        meets_fault: it is an exchange, and not what goes before and between exchanges, such as a log-in.
        is_answered: the server will answer it.
        is_bodyless: its answer has no content, whatever its fields say (HEAD).
        refusal: what the proxy answers by itself, and passes nothing on.
    """

    content: bytes
    meets_fault: bool = True
    is_answered: bool = True
    is_bodyless: bool = False
    refusal: bytes = b""


@dataclass(slots=True)
class Owed:
    """A request that the server has yet to answer.

    Attributes:
        request: which.
        fault: that its exchange meets.
        given_bytes: of the answer that the client has got.
    """

    request: Request
    fault: Fault
    given_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes that the server sent.

    Attributes:
        content: the bytes.
        is_last: the answer to the oldest request ends with them.
    """

    content: bytes
    is_last: bool


class Wire(Protocol):
    """A protocol.

    Attributes:
        acts_at_first_byte: when the first byte of an answer comes, the work is done; else it is when the last has come.
    """

    acts_at_first_byte: bool

    def requests(self, client: asyncio.StreamReader) -> AsyncIterator[Request]:
        """The requests of a connection, until the client is gone."""

    def answers(self, server: asyncio.StreamReader, owed: deque[Owed]) -> AsyncIterator[Piece]:
        """What the server sends, until it is gone; the oldest request that is not answered is the first of `owed`."""
