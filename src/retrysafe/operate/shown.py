"""What people on call are shown of records: as lines for them, and as JSON for their programs.

Nothing secret is part of it: no key, no token, and of a stored answer its status and size alone, unless its content is
asked for.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any, assert_never

from retrysafe.model import Record, State
from retrysafe.operate.keys import Listing, is_stuck
from retrysafe.protocol import history, journal
from retrysafe.protocol.duration import rfc3339
from retrysafe.protocol.history import Attempt, Foreign, Intervention, WithoutEffect
from retrysafe.protocol.snapshot import Encryption, Snapshot, Unreadable, is_encrypted, unseal
from retrysafe.protocol.transitions import Details

_UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"))


def age(duration_ms: int) -> str:
    """How long, in the largest unit of which there are two at least: `90 min`."""
    for unit_ms, unit in _UNITS:
        if duration_ms >= 2 * unit_ms:
            return f"{duration_ms // unit_ms} {unit}"
    return f"{max(0, duration_ms) // 1_000} s"


def plain(text: str) -> str:
    """Text of others as a terminal may have it: what would steer it is spelled out."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


# --- many records -----------------------------------------------------------------------------------


def list_document(listing: Listing) -> dict[str, Any]:
    """A list as JSON has it."""
    records = [_record(listed.record_id, listed.record, listing.now_ms) for listed in listing.records]
    return {"now": rfc3339(listing.now_ms), "records": records, "more": listing.more}


def list_lines(listing: Listing) -> Iterator[str]:
    """A list for people: a line for each record."""
    for listed in listing.records:
        record, now_ms = listed.record, listing.now_ms
        claimed = f"claimed {age(now_ms - record.claimed_at_ms)} ago"
        route = plain(record.route) or "(route not kept)"
        yield f"{listed.record_id.hex()}  {_state(record, now_ms)}, attempt {record.attempt}, {claimed}  {route}"


def _state(record: Record, now_ms: int) -> str:
    if record.state is not State.IN_PROGRESS:
        return record.state.value
    left_ms = record.lease_until_ms - now_ms
    return f"in_progress, lease {age(left_ms)} left" if left_ms > 0 else f"stuck, lease over for {age(-left_ms)}"


def _record(record_id: bytes, record: Record, now_ms: int) -> dict[str, Any]:
    return {
        "id": record_id.hex(),
        "state": record.state.value,
        "stuck": is_stuck(record, now_ms),
        "route": record.route,
        "attempt": record.attempt,
        "first_seen": rfc3339(record.created_at_ms),
        "claimed_at": rfc3339(record.claimed_at_ms),
        "claimed_s_ago": max(0, now_ms - record.claimed_at_ms) // 1_000,
        "lease_until": rfc3339(record.lease_until_ms),
        "settled_at": None if record.settled_at_ms is None else rfc3339(record.settled_at_ms),
        "expires_at": None if record.expires_at_ms is None else rfc3339(record.expires_at_ms),
        "forget_at": rfc3339(record.forget_at_ms),
    }


# --- one record -------------------------------------------------------------------------------------


class StoredResponse:
    """What a record keeps of the first answer, as far as it can be read here.

    Args:
        stored: the bytes.
        record_id: whose.
        secret: of the store.
        encryption: the keys that were given; None if none were.
    """

    def __init__(self, stored: bytes, record_id: bytes, secret: bytes, encryption: Encryption | None) -> None:
        self.stored_bytes = len(stored)
        self.encrypted = is_encrypted(stored)
        self.snapshot: Snapshot | None = None
        self.fault = ""
        try:
            self.snapshot = unseal(stored, record_id, secret, encryption)
        except Unreadable as unreadable:
            self.fault = str(unreadable)

    @property
    def kept(self) -> str:
        """How much of it is kept."""
        if self.snapshot is None:
            return "unreadable"
        return ("redacted" if self.snapshot.redacted else "whole") if self.snapshot.whole else "receipt"

    def document(self, *, with_content: bool) -> dict[str, Any]:
        """As JSON has it."""
        said: dict[str, Any] = {"kept": self.kept, "encrypted": self.encrypted, "stored_bytes": self.stored_bytes}
        if self.snapshot is None:
            return said | {"fault": self.fault}
        said |= {"status": self.snapshot.response.status, "content_bytes": self.snapshot.size}
        return said | (_content(self.snapshot) if with_content else {})

    def line(self) -> str:
        """For people."""
        encrypted = ", encrypted" if self.encrypted else ""
        if self.snapshot is None:
            return f"{self.stored_bytes} bytes{encrypted}, which cannot be read: {self.fault}"
        return f"status {self.snapshot.response.status}, {self.snapshot.size} bytes, kept {self.kept}{encrypted}"


def _content(snapshot: Snapshot) -> dict[str, Any]:
    headers = [[name.decode("latin-1"), line.decode("latin-1")] for name, line in snapshot.response.headers]
    try:
        return {"headers": headers, "body": snapshot.response.body.decode()}
    except UnicodeDecodeError:
        return {"headers": headers, "body_base64": base64.b64encode(snapshot.response.body).decode()}


class Steps:
    """The steps of an operation that is not completed, by name and state; nothing of what they were called with.

    Args:
        stored: the journal as it is stored; None if there is none.
        record_id: whose.
        secret: of the store.
        encryption: the keys that were given; None if none were.
    """

    def __init__(self, stored: bytes | None, record_id: bytes, secret: bytes, encryption: Encryption | None) -> None:
        self.entries: tuple[journal.Entry, ...] = ()
        self.fault = ""
        try:
            self.entries = () if stored is None else journal.unseal_journal(stored, record_id, secret, encryption)
        except Unreadable as unreadable:
            self.fault = str(unreadable)

    def document(self) -> list[dict[str, Any]] | dict[str, str]:
        """As JSON has it."""
        if self.fault:
            return {"fault": self.fault}
        return [
            {"name": entry.name, "target": entry.target, "state": _step_state(entry), "sends": entry.sends}
            for entry in self.entries
        ]

    def lines(self) -> Iterator[str]:
        """For people."""
        if self.fault:
            yield f"steps: they cannot be read: {self.fault}"
        for entry in self.entries:
            target = f" of {plain(entry.target)}" if entry.target else ""
            yield f"step {plain(entry.name)}{target}: {_step_state(entry)}, sent {_times(entry.sends)}"


def _step_state(entry: journal.Entry) -> str:
    return "done" if entry.result else "open"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def response_of(
    details: Details, record_id: bytes, secret: bytes, encryption: Encryption | None
) -> StoredResponse | None:
    """The stored response of a record; None if it has none."""
    stored = None if details.found is None else details.found.record.response
    return None if stored is None else StoredResponse(stored, record_id, secret, encryption)


def document(
    record_id: bytes, details: Details, response: StoredResponse | None, steps: Steps, *, with_content: bool = False
) -> dict[str, Any]:
    """One record as JSON has it; `state` is null if there is a history and no record."""
    found = details.found
    said = {"id": record_id.hex(), "state": None} if found is None else _record(record_id, found.record, found.now_ms)
    return said | {
        "response": None if response is None else response.document(with_content=with_content),
        "request_kept": details.request is not None,
        "steps": steps.document(),
        "history": [_entry(entry) for entry in _without_withdrawals(history.read(details.history))],
    }


def lines(record_id: bytes, details: Details, response: StoredResponse | None, steps: Steps) -> Iterator[str]:
    """One record for people: what it is, then its past, oldest first."""
    yield f"record {record_id.hex()}"
    found = details.found
    if found is None:
        yield "state: there is no record any more"
    else:
        record, now_ms = found.record, found.now_ms
        yield f"state: {_state(record, now_ms)}"
        yield f"route: {plain(record.route) or '(not kept)'}"
        yield f"first seen: {_instant(record.created_at_ms, now_ms)}"
        yield f"response: {'none' if response is None else response.line()}"
        yield f"request kept: {'yes' if details.request is not None else 'no'}"
        yield from steps.lines()
    for entry, withdrawn in _without_withdrawals(history.read(details.history)):
        yield _entry_line(entry, withdrawn=withdrawn)
    if found is not None:
        yield _latest_line(found.record)


def settled(record_id: bytes, record: Record | None) -> str:
    """What settling a record came to, for people.

    Args:
        record_id: whose.
        record: as it stands then; None if settling it was only proposed.
    """
    if record is None:
        return f"record {record_id.hex()}: proposed; somebody else does it by the same command with --approve"
    if record.state is State.COMPLETED and record.expires_at_ms is not None:
        return f"record {record_id.hex()}: completed; retries get the answer until {rfc3339(record.expires_at_ms)}"
    return f"record {record_id.hex()}: {record.state.value}; the next retry runs"


def content_lines(response: StoredResponse) -> Iterator[str]:
    """The stored response itself, for people who asked for it."""
    if response.snapshot is None:
        return
    for name, line in response.snapshot.response.headers:
        yield plain(f"{name.decode('latin-1')}: {line.decode('latin-1')}")
    yield ""
    yield from map(plain, response.snapshot.response.body.decode("utf-8", "backslashreplace").splitlines())


def _instant(instant_ms: int, now_ms: int) -> str:
    return f"{rfc3339(instant_ms)}, {age(now_ms - instant_ms)} ago"


def _without_withdrawals(
    entries: Sequence[history.Entry | Foreign],
) -> Iterator[tuple[Attempt | Intervention | Foreign, bool]]:
    """Each entry, and whether it was an intervention that had no effect."""
    for entry in entries:
        if not isinstance(entry, WithoutEffect):
            yield entry, isinstance(entry, Intervention) and history.is_withdrawn(entry, entries)


def _entry(told: tuple[Attempt | Intervention | Foreign, bool]) -> dict[str, Any]:
    entry, withdrawn = told
    match entry:
        case Attempt(number, token, claimed_at_ms, lease_until_ms, end, settled_at_ms):
            return {
                "attempt": number,
                "claim": token,
                "claimed_at": rfc3339(claimed_at_ms),
                "lease_until": rfc3339(lease_until_ms),
                "end": end.value,
                "settled_at": None if settled_at_ms is None else rfc3339(settled_at_ms),
            }
        case Intervention(action, actor, note, at_ms, attempt, token, state, answer, proposed):
            return {
                "action": action.value,
                "actor": actor,
                "note": note,
                "at": rfc3339(at_ms),
                "attempt": attempt,
                "claim": token,
                "state_before": state.value,
                "answer": answer or None,
                "proposed": proposed,
                "took_effect": not withdrawn and not proposed,
            }
        case Foreign(reason):
            return {"unreadable": reason}
        case _:
            assert_never(entry)


def _entry_line(entry: Attempt | Intervention | Foreign, *, withdrawn: bool) -> str:
    match entry:
        case Attempt(number, token, claimed_at_ms, lease_until_ms, end, settled_at_ms):
            ended = end.value if settled_at_ms is None else f"{end.value} {rfc3339(settled_at_ms)}"
            claimed = f"claimed {rfc3339(claimed_at_ms)}, lease until {rfc3339(lease_until_ms)}"
            return f"attempt {number} ({token}): {claimed}, {ended}"
        case Intervention(action, actor, note, at_ms, attempt, token, state, answer, proposed):
            what = f"{'proposes ' if proposed else ''}{action.value}{f' ({answer})' if answer else ''}"
            late = "; it came too late and had no effect" if withdrawn else ""
            of = f"attempt {attempt} ({token}), {state.value}"
            return f"by hand {rfc3339(at_ms)}: {plain(actor)}: {what} of {of}: {plain(note)}{late}"
        case Foreign(reason):
            return f"an entry that this release cannot read: {reason}"
        case _:
            assert_never(entry)


def _latest_line(record: Record) -> str:
    claimed = f"claimed {rfc3339(record.claimed_at_ms)}, lease until {rfc3339(record.lease_until_ms)}"
    settled = "" if record.settled_at_ms is None else f" {rfc3339(record.settled_at_ms)}"
    token = history.token_name(record.token)
    return f"attempt {record.attempt} ({token}): {claimed}, {record.state.value}{settled}"
