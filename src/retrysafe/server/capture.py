"""Watches a response go by: what may be sent now, and what must wait for the record. Pure.

The start is held until the first piece of content. Then pieces go out as they come, but for the one
that completes the response: the piece that reaches `Content-Length`, or goes past it, or else the last one. That one
is held until the record is durable, so that a client which has a whole answer can rely on its replay.
"""

from __future__ import annotations

import hashlib
from collections.abc import MutableMapping
from typing import Any

from retrysafe.model import Headers, Response
from retrysafe.protocol.effects import Answered, Fate

Message = MutableMapping[str, Any]


_BODILESS = frozenset({204, 205, 304})


class Capture:
    """The response of one handler, as ASGI messages.

    Args:
        body_bytes_max: larger contents are not kept; only their size and digest are.
        withheld: names of response fields, in lower case, that a handler may not set.
    """

    __slots__ = (
        "_body_bytes_max", "_digest", "_expected", "_headers", "_pieces", "_size", "_status", "_withheld", "held",
        "sent",
    )  # fmt: skip

    def __init__(self, body_bytes_max: int, withheld: frozenset[bytes]) -> None:
        self._body_bytes_max = body_bytes_max
        self._withheld = withheld
        self._status: int | None = None
        self._headers: Headers = ()
        self._expected: int | None = None
        self._pieces: list[bytes] = []
        self._digest: Any = None
        self._size = 0
        self.held: list[Message] = []
        self.sent = False

    def start(self, message: Message) -> None:
        """Take the start of the response; it waits for the first piece of content.

        A second one, of a handler that was interrupted before the first was sent, begins the response anew.
        """
        self._expected = self._digest = None
        self._pieces.clear()
        self._size = 0
        headers = []
        for field, value in message.get("headers") or ():
            name = field.lower()
            if name in self._withheld:
                continue
            if name == b"content-length" and value.strip().isdigit():
                self._expected = int(value)
            headers.append((bytes(field), bytes(value)))
        status = message["status"]
        if not isinstance(status, int) or not 100 <= status <= 999:
            raise ValueError(
                f"the application answered with the status {status!r}; it must be a number from 100 to 999"
            )
        self._status, self._headers = int(status), tuple(headers)
        if self._status in _BODILESS:
            self._expected = 0  # a client has the whole answer with its head
        self.held = [{**message, "headers": headers}]  # a list that middleware outside of the door may write into

    def piece(self, message: Message) -> bool:
        """Take a piece of content; whether it completes the response. Either way it is now in `held`."""
        content = message.get("body", b"")
        if self._expected is not None:
            # Servers send no more than the length says: that is the whole answer of the client, and of its replay.
            content = content[: self._expected - self._size]
        self._size += len(content)
        if self._digest is not None or self._size > self._body_bytes_max:
            self._digest_of_all(content)
        elif content:
            self._pieces.append(bytes(content))
        self.held.append(message)
        return not message.get("more_body", False) or self._size == self._expected

    def _digest_of_all(self, content: bytes) -> None:
        if self._digest is None:
            self._digest = hashlib.sha256(b"".join(self._pieces))
            self._pieces.clear()
        self._digest.update(content)

    def release(self) -> list[Message]:
        """The messages that waited, to be sent now."""
        messages, self.held = self.held, []
        self.sent = True
        return messages

    def answered(self, fate: Fate) -> Answered:
        """The complete response, for the record."""
        if self._status is None:
            raise AssertionError("a response without a start was called complete")
        whole = self._digest is None
        return Answered(
            Response(self._status, self._headers, b"".join(self._pieces)),
            whole=whole,
            size=self._size,
            digest=b"" if whole else self._digest.digest(),
            fate=fate,
        )
