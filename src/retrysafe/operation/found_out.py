"""What the application is shown of a record whose outcome is unknown, and what it may say of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from retrysafe.errors import CallerError
from retrysafe.model import Response
from retrysafe.protocol.journal import Entry, NotData, content, decoded, encoded, unseal_journal
from retrysafe.protocol.key import child_key
from retrysafe.protocol.snapshot import Encryption
from retrysafe.protocol.stored_request import StoredRequest
from retrysafe.protocol.transitions import Details


@dataclass(frozen=True, slots=True)
class StepView:
    """A step of an operation whose outcome is unknown.

    Attributes:
        name: of the step.
        target: whom it calls.
        key: the idempotency key that the call was made with.
        input: the bytes that it was made with; None if there were none.
        sends: how often the call was about to be made.
        is_done: its result was recorded; else the call may or may not have been made.
        result: what was recorded; None if nothing was.
    """

    name: str
    target: str
    key: str = field(repr=False)
    input: bytes | None = field(repr=False)
    sends: int
    is_done: bool
    result: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class RecordView:
    """A record whose outcome is unknown. Instants are milliseconds by the store's clock.

    Attributes:
        record_id: in hexadecimal.
        route: the entry of the routes table.
        attempt: the number of the latest.
        first_seen_ms: when the operation began.
        claimed_at_ms: when the latest attempt did.
        now_ms: the store's clock.
        steps: in the order in which they were begun.
        request: what was stored of the request, with its key and its account; None if it was not stored.
    """

    record_id: str
    route: str
    attempt: int
    first_seen_ms: int
    claimed_at_ms: int
    now_ms: int
    steps: tuple[StepView, ...]
    request: StoredRequest | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Completed:
    """It took effect: retries are answered with this.

    Attributes:
        content: bytes, or JSON data.
        status: of the answer.
        headers: of the answer; `Content-Type` is JSON's for JSON data, if nothing else is said.
    """

    content: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NotDone:
    """It did not take effect: the next retry runs."""


@dataclass(frozen=True, slots=True)
class StillUnknown:
    """Nobody can tell: the record stays as it is."""


Answer = Completed | NotDone | StillUnknown


def response_of(completed: Completed) -> Response:
    """The answer for retries.

    Raises:
        CallerError: its content is no data, or its status no final one.
    """
    if not isinstance(completed.status, int) or not 200 <= completed.status <= 999:
        raise CallerError(f"Completed(status={completed.status!r}): a status is a number from 200 to 999")
    try:
        body = content(encoded(completed.content)) or b""
    except NotData as error:
        raise CallerError(f"Completed(content=...) must be bytes or JSON data: {error}") from None
    headers = tuple(
        (name.lower().encode("latin-1"), line.encode("latin-1")) for name, line in completed.headers.items()
    )
    if not isinstance(completed.content, bytes) and not any(name == b"content-type" for name, _ in headers):
        headers += ((b"content-type", b"application/json"),)
    return Response(completed.status, headers, body)


def view_of(
    identity: bytes, details: Details, stored: StoredRequest | None, secret: bytes, encryption: Encryption | None
) -> RecordView:
    """What the application is shown.

    Args:
        identity: the record's id.
        details: of a record that is there.
        stored: its request.
        secret: of the store.
        encryption: of what is stored.

    Raises:
        Unreadable: its journal cannot be read.
    """
    if details.found is None:
        raise AssertionError("a record that is not there was to be shown")
    record = details.found.record
    entries = () if details.journal is None else unseal_journal(details.journal, identity, secret, encryption)
    return RecordView(
        record_id=identity.hex(),
        route=record.route,
        attempt=record.attempt,
        first_seen_ms=record.created_at_ms,
        claimed_at_ms=record.claimed_at_ms,
        now_ms=details.found.now_ms,
        steps=tuple(_step(entry, identity, secret) for entry in entries),
        request=stored,
    )


def _step(entry: Entry, identity: bytes, secret: bytes) -> StepView:
    return StepView(
        name=entry.name,
        target=entry.target,
        key=child_key(secret, identity, entry.name, entry.target),
        input=content(entry.input),
        sends=entry.sends,
        is_done=bool(entry.result),
        result=decoded(entry.result) if entry.result else None,
    )
