"""The nouns of the engine: frozen values, and nothing that does I/O.

Headers are an ordered tuple of pairs of bytes, never a mapping: two `Link` lines stay two lines.
Instants and durations are integers in milliseconds; an instant is always the *store's* clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field
from enum import StrEnum
from typing import Protocol

from retrysafe.value import value

Headers = tuple[tuple[bytes, bytes], ...]


class Body(Protocol):
    """The whole content of a request, in memory or spooled to disk; may be read many times."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    def chunks(self) -> Iterator[bytes]:
        """The content from its start, in pieces of a bounded size."""

    def read(self) -> bytes:
        """The content as one string of bytes."""


@value
class BytesBody:
    """Content that is held in memory."""

    content: bytes = b""

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.content)

    def chunks(self) -> Iterator[bytes]:
        """The content in one piece."""
        yield self.content

    def read(self) -> bytes:
        """The content as one string of bytes."""
        return self.content


@value
class Head:
    """A request before its content is read.

    Attributes:
        method: upper case, as sent.
        path: the raw path, percent-escapes as sent, without the query.
        query: the raw query, without the question mark.
        headers: field lines in order; names in lower case.
    """

    method: str
    path: bytes
    query: bytes
    headers: Headers
    _lines: dict[bytes, bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._lines = dict(self.headers)  # type: ignore[misc] # frozen for those who use it

    def values(self, name: bytes) -> Sequence[bytes]:
        """All field lines of that lower-case name, in order."""
        lines = self._lines
        if name not in lines:
            return ()
        if len(lines) == len(self.headers):  # no name is repeated, as in nearly every request
            return (lines[name],)
        return tuple(line for field_name, line in self.headers if field_name == name)


@value
class Request:
    """A request whose content has arrived whole (contract R38)."""

    head: Head
    body: Body


@value
class Response:
    """A complete answer: status code, field lines in order, content bytes as sent."""

    status: int
    headers: Headers
    body: bytes = b""

    def value(self, name: bytes) -> bytes | None:
        """The first field line of that lower-case name, whatever case it was sent in."""
        return next((line for field_name, line in self.headers if field_name.lower() == name), None)


class State(StrEnum):
    """What a record can be; absence of a record is no state. The moves are in `protocol.states`."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    RETRYABLE = "retryable"
    UNKNOWN = "unknown"
    EXPIRED = "expired"


@value
class Claim:
    """The right to execute, as a value. Every write by its owner is conditional on the token.

    Attributes:
        record_id: 32 bytes, keyed digest of (namespace, scope, key); the store sees nothing else of them.
        token: 16 random bytes, new for each attempt.
        attempt: 1 for the first; counts claims of this record.
    """

    record_id: bytes
    token: bytes
    attempt: int


@value
class Record:
    """What the store holds for one record id.

    Attributes:
        state: where in its life the record is.
        token: of the latest claim.
        attempt: number of the latest claim.
        fingerprint: of the first request; version byte and digest.
        created_at_ms: first seen.
        claimed_at_ms: the latest claim.
        lease_until_ms: how far the latest claim holds without renewal.
        settled_at_ms: completed, released or marked unknown; None while in progress.
        expires_at_ms: end of the lifetime; None unless completed or expired.
        forget_at_ms: when the record itself may be deleted.
        response: the sealed snapshot; None unless completed.
        route: the entry of the routes table that the first request matched; empty if it was not kept.
    """

    state: State
    token: bytes
    attempt: int
    fingerprint: bytes
    created_at_ms: int
    claimed_at_ms: int
    lease_until_ms: int
    settled_at_ms: int | None
    expires_at_ms: int | None
    forget_at_ms: int
    response: bytes | None
    route: str = ""


@value
class Found:
    """A record as it stands, and the store's clock when it was read."""

    record: Record
    now_ms: int
