"""What is added to the history of a record: small values, which nothing changes afterwards (contract R56, R99).

A record itself knows its latest claim only. What came before it, and what people did to it, is here: an entry for
each attempt that another one followed, and one for each time that somebody stepped in. An entry is JSON, so that it
can be read without this code; it holds no key, no content and no token, only the beginning of a token's digest.

Nobody else waits for an entry, and requests that race add the same one: whoever shows a history merges them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, fields
from enum import StrEnum
from typing import Any, get_type_hints

from retrysafe.model import Found, Record, Response, State
from retrysafe.protocol.framing import frame
from retrysafe.protocol.policy import Policy
from retrysafe.protocol.transitions import HISTORY_ENTRY_BYTES_MAX, AddHistory
from retrysafe.value import value

VERSION = 1
ACTOR_BYTES_MAX = 200
NOTE_BYTES_MAX = 3_000  # twice that with every character escaped, and still an entry

# A client that is told to come later, again and again, must not fill the store with that.
RELEASED_ATTEMPTS_KEPT = 100


class End(StrEnum):
    """How an attempt ended that another one followed."""

    LAPSED = "lapsed"
    RELEASED = "released"


class Action(StrEnum):
    """What somebody may do to a record, in the words of the command line."""

    COMPLETED = "resolve --completed"
    NOT_DONE = "resolve --not-done"
    RELEASE = "release"
    FORGET = "forget"


@value
class Attempt:
    """An attempt that another one followed.

    Attributes:
        number: of the attempt.
        token: how the claim is told apart from another with the same number; see `token_name`.
        claimed_at_ms: by the store's clock, as the others.
        lease_until_ms: how far its lease went without renewal.
        end: how it ended.
        settled_at_ms: when it was released; None if its lease lapsed.
    """

    number: int
    token: str
    claimed_at_ms: int
    lease_until_ms: int
    end: End
    settled_at_ms: int | None = None


@value
class Intervention:
    """Somebody stepped in, or proposes to. It is added before it is done.

    Attributes:
        action: what was to be done.
        actor: who did it, a person or a program, in their own words.
        note: why.
        at_ms: when the record was looked at, by the store's clock.
        attempt: the latest, as it was seen.
        token: its claim; see `token_name`.
        state: of the record, as it was seen.
        answer: the first 16 hexadecimal digits of a SHA-256 of the answer that was given; empty without one.
        proposed: it was not done: somebody else has to approve.
    """

    action: Action
    actor: str
    note: str
    at_ms: int
    attempt: int
    token: str
    state: State
    answer: str = ""
    proposed: bool = False


@value
class WithoutEffect:
    """An intervention came too late: the record had changed meanwhile. It is named by what it says of itself."""

    action: Action
    actor: str
    at_ms: int
    token: str


@value
class Foreign:
    """An entry that this release cannot read."""

    reason: str


Entry = Attempt | Intervention | WithoutEffect

_KINDS: dict[str, type[Attempt | Intervention | WithoutEffect]] = {
    "attempt": Attempt,
    "intervention": Intervention,
    "without effect": WithoutEffect,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def token_name(token: bytes) -> str:
    """What a token is called where people can see it: the first 8 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(token).hexdigest()[:8]


def attempt_of(record: Record, end: End) -> Attempt:
    """The latest attempt of a record, which another one is about to follow."""
    settled_at_ms = record.settled_at_ms if end is End.RELEASED else None
    return Attempt(
        record.attempt, token_name(record.token), record.claimed_at_ms, record.lease_until_ms, end, settled_at_ms
    )


def intervention_in(  # noqa: PLR0913 - each is something that it says
    found: Found, action: Action, actor: str, note: str, *, answer: str = "", proposed: bool = False
) -> Intervention:
    """What somebody is about to do to a record, or proposes to do."""
    record, token = found.record, token_name(found.record.token)
    return Intervention(action, actor, note, found.now_ms, record.attempt, token, record.state, answer, proposed)


def answer_name(response: Response) -> str:
    """How an answer that was given by hand is told apart from another."""
    fields = (field for pair in response.headers for field in pair)
    digest = hashlib.sha256(frame(b"%d" % response.status, *fields, response.body))
    return digest.hexdigest()[:16]


def is_proposed_by_another(intervention: Intervention, entries: Iterable[Entry | Foreign]) -> bool:
    """Whether somebody else has proposed exactly this, for the same claim of the record."""
    return any(
        isinstance(entry, Intervention)
        and entry.proposed
        and entry.actor != intervention.actor
        and (entry.action, entry.token, entry.answer) == (intervention.action, intervention.token, intervention.answer)
        for entry in entries
    )


def without_effect(intervention: Intervention) -> WithoutEffect:
    """The word that an intervention came too late."""
    return WithoutEffect(intervention.action, intervention.actor, intervention.at_ms, intervention.token)


def is_withdrawn(intervention: Intervention, entries: Iterable[Entry | Foreign]) -> bool:
    """Whether the history says that this intervention had no effect."""
    return without_effect(intervention) in entries


def adding(record_id: bytes, entry: Entry, policy: Policy) -> AddHistory:
    """The transition that adds an entry; it is kept for as long as the record could be.

    Args:
        record_id: whose history.
        entry: what to add.
        policy: of the record's route.

    Raises:
        ValueError: the entry is too large.
    """
    encoded = encode(entry)
    if len(encoded) > HISTORY_ENTRY_BYTES_MAX:
        raise ValueError(f"an entry of {len(encoded)} bytes; at most {HISTORY_ENTRY_BYTES_MAX} are kept")
    return AddHistory(record_id, encoded, policy.unknown_retention_ms + policy.lifetime_ms + policy.tombstone_ms)


def encode(entry: Entry) -> bytes:
    """The bytes of an entry."""
    document = {"v": VERSION, "kind": _NAMES[type(entry)], **asdict(entry)}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def decode(encoded: bytes) -> Entry | Foreign:
    """The entry that these bytes are."""
    try:
        document = json.loads(encoded)
    except ValueError:
        return Foreign("no entry of a history")
    if not isinstance(document, dict) or document.get("v") != VERSION:
        return Foreign("an entry of another release")
    kind = _KINDS.get(str(document.get("kind")))
    if kind is None:
        return Foreign("an entry of another release")
    try:
        return kind(**{field.name: _typed(kind, field.name, document[field.name]) for field in fields(kind)})
    except (KeyError, TypeError, ValueError):
        return Foreign("an entry that was damaged")


def _typed(kind: type[Entry], name: str, seen: Any) -> Any:
    """The value of a field, if it is one."""
    wanted = get_type_hints(kind)[name]
    if wanted is bool:
        if not isinstance(seen, bool):
            raise TypeError(name)
        return seen
    if wanted is int or wanted == int | None:
        if seen is None and wanted is not int:
            return None
        if not isinstance(seen, int) or isinstance(seen, bool):
            raise TypeError(name)
        return seen
    if not isinstance(seen, str):
        raise TypeError(name)
    return wanted(seen)


def read(history: Iterable[bytes]) -> tuple[Entry | Foreign, ...]:
    """The entries of a history, oldest first; what racing requests added twice stands once."""
    return tuple(dict.fromkeys(decode(encoded) for encoded in history))
