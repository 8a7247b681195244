"""The protocol of Redis and Valkey, RESP 2 and 3: each command is a request, each reply its answer.

Subscriptions are not carried: their messages answer no command.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from retrysafe.faults.wire import Owed, Piece, Request

_BULKS = frozenset(b"$!=")
_LISTS = frozenset(b"*~>")
_TABLES = frozenset(b"%|")
_PUSH, _ATTRIBUTE = ord(">"), ord("|")


class Redis:
    """Redis."""

    acts_at_first_byte = False

    async def requests(self, client: asyncio.StreamReader) -> AsyncIterator[Request]:
        """Command by command, however many come at once."""
        while True:
            yield Request(await _value(client))

    async def answers(self, server: asyncio.StreamReader, owed: deque[Owed]) -> AsyncIterator[Piece]:  # noqa: ARG002 - its replies tell where they end
        """Reply by reply; what the server pushes by itself, and attributes, belong to the next one."""
        while True:
            reply = await _value(server)
            yield Piece(reply, is_last=reply[0] not in {_PUSH, _ATTRIBUTE})


async def _value(reader: asyncio.StreamReader) -> bytes:
    """One value with all that is in it; a line that is none of them is a command as people type it."""
    line = await reader.readuntil(b"\r\n")
    kind = line[0]
    if kind in _BULKS:
        size = int(line[1:])
        return line if size < 0 else line + await reader.readexactly(size + 2)
    if kind not in _LISTS | _TABLES:
        return line
    count = int(line[1:]) * (2 if kind in _TABLES else 1)
    return line + b"".join([await _value(reader) for _ in range(count)])
