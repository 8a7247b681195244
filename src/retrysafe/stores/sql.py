"""The SQL of the transitions, built once from `protocol.states`: one statement each, under its name.

No state is written here by hand. What a statement requires (the states that its event may come from,
and its guard) and the state that it leads to are the table's; only what else it writes stands here.
Parameters are named like the attributes of the transition; `:now_ms` is the store's clock.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from retrysafe.model import Record
from retrysafe.protocol.effects import (
    ClaimIfRetryable,
    CompleteIfHeld,
    DiscardIfHeld,
    ForgetIfOver,
    MarkUnknownIfHeld,
    MarkUnknownIfLapsed,
    ReleaseIfHeld,
    RenewIfHeld,
    TakeOverIfLapsed,
    Transition,
)
from retrysafe.protocol.states import GUARDS, Event, Guard, sources, target

# ruff: noqa: S608 - these texts are made of constants of this package, at import; values are always parameters

_GUARDS = {
    Guard.HELD: "token = :token",
    Guard.SEEN: "token = :seen_token",
    Guard.LAPSED: "token = :seen_token AND lease_until_ms <= :now_ms",
    Guard.FORGETTABLE: "token = :seen_token AND forget_at_ms <= :now_ms",
}


def _may(event: Event) -> str:
    """The record is in a state from which `event` may happen."""
    return "state IN ({})".format(", ".join(f"'{state}'" for state in sources(event)))


def condition(event: Event) -> str:
    """What the table and the guard of `event` require of a record."""
    return f"{_GUARDS[GUARDS[event]]} AND {_may(event)}"


def _change(event: Event, writes: str, where: str) -> str:
    """Move the records to where `event` leads, which may be out of the table."""
    after = target(event)
    if after is None:
        return f"DELETE FROM records WHERE {where}"
    return f"UPDATE records SET state = '{after}', {writes} WHERE {where}"


COLUMNS = ", ".join(column.name for column in fields(Record))

_LEASE = "lease_until_ms = :now_ms + :lease_ms, forget_at_ms = :now_ms + :lease_ms + :forget_after_ms"
_NEW_CLAIM = f"token = :token, attempt = attempt + 1, claimed_at_ms = :now_ms, settled_at_ms = NULL, {_LEASE}"
_SETTLED = "settled_at_ms = :now_ms, forget_at_ms = :now_ms + :forget_after_ms"
_COMPLETED = (
    "response = :response, settled_at_ms = :now_ms, expires_at_ms = :now_ms + :lifetime_ms, "
    "forget_at_ms = :now_ms + :lifetime_ms + :forget_after_ms"
)

RECORD = f"SELECT {COLUMNS} FROM records WHERE record_id = :record_id"

FIRST = {
    "record_id": ":record_id",
    "state": f"'{target(Event.CLAIM)}'",
    "token": ":token",
    "attempt": "1",
    "fingerprint": ":fingerprint",
    "created_at_ms": ":now_ms",
    "claimed_at_ms": ":now_ms",
    "lease_until_ms": ":now_ms + :lease_ms",
    "forget_at_ms": ":now_ms + :lease_ms + :forget_after_ms",
}
"""What a first claim inserts, column by column."""

CLAIM = (
    f"INSERT INTO records ({', '.join(FIRST)}) VALUES ({', '.join(FIRST.values())}) ON CONFLICT (record_id) DO NOTHING"
)

MOVES: dict[type[Transition[Any]], tuple[Event, str]] = {
    TakeOverIfLapsed: (Event.TAKE_OVER, _NEW_CLAIM),
    ClaimIfRetryable: (Event.RECLAIM, _NEW_CLAIM),
    RenewIfHeld: (Event.RENEW, _LEASE),
    CompleteIfHeld: (Event.COMPLETE, _COMPLETED),
    ReleaseIfHeld: (Event.RELEASE, _SETTLED),
    DiscardIfHeld: (Event.DISCARD, ""),
    MarkUnknownIfHeld: (Event.GIVE_UP, _SETTLED),
    MarkUnknownIfLapsed: (Event.ABANDON, _SETTLED),
    ForgetIfOver: (Event.FORGET, ""),
}
"""What each transition lets happen to its record, and what it writes besides the state."""

CHANGES = {
    kind: _change(event, writes, f"record_id = :record_id AND {condition(event)}")
    for kind, (event, writes) in MOVES.items()
}

# --- purging: each statement looks at the records that have been due longest, so that it stays short ---

PURGES = {
    Event.FORGET: ("", "forget_at_ms <= :now_ms"),
    Event.EXPIRE: ("response = NULL", "expires_at_ms <= :now_ms AND forget_at_ms > :now_ms"),
    Event.ABANDON: ("settled_at_ms = :now_ms", "lease_until_ms <= :now_ms AND forget_at_ms <= :now_ms"),
}
"""What a purge lets happen, in this order: what it writes besides the state, and to which records."""


def purgeable(event: Event) -> str:
    """What a purge requires of a record."""
    _, which = PURGES[event]
    return f"{which} AND {_may(event)}"


LONGEST_DUE = (
    "record_id IN (SELECT record_id FROM records WHERE due_at_ms <= :now_ms ORDER BY due_at_ms LIMIT :batch_max)"
)

DUE = "SELECT 1 FROM records WHERE due_at_ms <= :now_ms LIMIT 1"

PURGE_FORGET, PURGE_EXPIRE, PURGE_ABANDON = (
    _change(event, writes, f"{LONGEST_DUE} AND {purgeable(event)}") for event, (writes, _) in PURGES.items()
)

# --- what belongs to the whole store ------------------------------------------------------------

TICK = "UPDATE meta SET clock_ms = max(clock_ms, :now_ms) RETURNING clock_ms"

CLOCK = "SELECT clock_ms FROM meta"

SECRET = "SELECT secret, secret_check FROM meta"  # noqa: S105 - the name of a column

KEEP_SECRET = "UPDATE meta SET secret = :secret, secret_check = :secret_check"  # noqa: S105 as above
