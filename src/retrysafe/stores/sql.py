"""The SQL of the transitions, built once from `protocol.states`: one statement each, under its name.

No state is written here by hand. What a statement requires (the states that its event may come from,
and its guard) and the state that it leads to are the table's; only what else it writes stands here.
Parameters are named like the attributes of the transition; `:now_ms` is the store's clock.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from retrysafe.model import Record
from retrysafe.protocol.effects import Transition
from retrysafe.protocol.states import GUARDS, Event, Guard, sources, target
from retrysafe.protocol.transitions import (
    STORED_HEAD_BYTES,
    ClaimIfRetryable,
    CompleteIfHeld,
    CompleteIfUnknown,
    DiscardIfHeld,
    ForgetIfOver,
    ForgetIfSeen,
    KeepJournalIfHeld,
    MarkUnknownIfHeld,
    MarkUnknownIfLapsed,
    ReleaseIfHeld,
    ReleaseIfUnknown,
    RenewIfHeld,
    ReplaceResponseIfSame,
    RevokeIfSeen,
    TakeOverIfLapsed,
)

# ruff: noqa: S608 - these texts are made of constants of this package, at import; values are always parameters

_GUARDS = {
    Guard.HELD: "token = :token",
    Guard.SEEN: "token = :seen_token",
    Guard.SAME: "token = :seen_token AND response = :seen_response",
    Guard.UNCHANGED: "token = :seen_token AND state = :seen_state",
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
    "forget_at_ms = :now_ms + :lifetime_ms + :forget_after_ms, request = NULL, journal = NULL"
)

LISTED = COLUMNS.replace("response", "NULL")
"""The columns of a record in a list, where its response is left out."""

RECORD = f"SELECT {COLUMNS} FROM records WHERE record_id = :record_id"

SEVERAL = tuple(f"id_{number}" for number in range(16))
SEVERAL_RECORDS = (
    f"SELECT record_id, {COLUMNS} FROM records WHERE record_id IN ({', '.join(f':{name}' for name in SEVERAL)})"
)

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
    "route": ":route",
    "request": ":request",
}
"""What a first claim inserts, column by column."""

CLAIM = (
    f"INSERT INTO records ({', '.join(FIRST)}) VALUES ({', '.join(FIRST.values())}) ON CONFLICT (record_id) DO NOTHING"
)

MOVES: dict[type[Transition[Any]], tuple[Event, str]] = {
    TakeOverIfLapsed: (Event.TAKE_OVER, _NEW_CLAIM),
    ClaimIfRetryable: (Event.RECLAIM, _NEW_CLAIM),
    RenewIfHeld: (Event.RENEW, _LEASE),
    KeepJournalIfHeld: (Event.JOURNAL, "journal = :journal"),
    CompleteIfHeld: (Event.COMPLETE, _COMPLETED),
    ReleaseIfHeld: (Event.RELEASE, _SETTLED),
    DiscardIfHeld: (Event.DISCARD, ""),
    MarkUnknownIfHeld: (Event.GIVE_UP, _SETTLED),
    MarkUnknownIfLapsed: (Event.ABANDON, _SETTLED),
    CompleteIfUnknown: (Event.RESOLVE, _COMPLETED),
    ReleaseIfUnknown: (Event.RULE_OUT, _SETTLED),
    RevokeIfSeen: (Event.REVOKE, _SETTLED),
    ReplaceResponseIfSame: (Event.RESEAL, "response = :response"),
    ForgetIfSeen: (Event.ERASE, ""),
    ForgetIfOver: (Event.FORGET, ""),
}
"""What each transition lets happen to its record, and what it writes besides the state."""

CHANGES = {
    kind: _change(event, writes, f"record_id = :record_id AND {condition(event)}")
    for kind, (event, writes) in MOVES.items()
}

# --- purging: each statement looks at the records that have been due longest, so that it stays short ---

# A release that knew of no request may have completed a record that has one: that goes with the response at the latest.
_EMPTIED = "response = NULL, request = NULL, journal = NULL"

PURGES = {
    Event.FORGET: ("", "forget_at_ms <= :now_ms"),
    Event.EXPIRE: (_EMPTIED, "expires_at_ms <= :now_ms AND forget_at_ms > :now_ms"),
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

# --- everything that is kept of one record, and what outlives it ---------------------------------

DETAILS = f"SELECT {COLUMNS}, request, journal FROM records WHERE record_id = :record_id"

HISTORY = "SELECT entry FROM history WHERE record_id = :record_id AND forget_at_ms > :now_ms ORDER BY place"

ADDED = {
    "record_id": ":record_id",
    "added_at_ms": ":now_ms",
    "forget_at_ms": ":now_ms + :keep_ms",
    "entry": ":entry",
}
"""What an addition to a history inserts, column by column."""

ADD_HISTORY = f"INSERT INTO history ({', '.join(ADDED)}) VALUES ({', '.join(ADDED.values())})"

HISTORY_DUE = "SELECT 1 FROM history WHERE forget_at_ms <= :now_ms LIMIT 1"

PURGE_HISTORY = (
    "DELETE FROM history WHERE place IN"
    " (SELECT place FROM history WHERE forget_at_ms <= :now_ms ORDER BY forget_at_ms LIMIT :batch_max)"
)

# --- looking at many records ----------------------------------------------------------------------

RESPONSES = (
    f"SELECT record_id, substr(response, 1, {STORED_HEAD_BYTES}) FROM records"
    " WHERE record_id > :after AND response IS NOT NULL ORDER BY record_id LIMIT :batch_max"
)

# Those that are looked for may be few among many. So each page looks at so many records, whether they are on it or
# not, and no statement keeps others waiting.
PORTION = 5_000

PORTION_END = "SELECT record_id FROM records WHERE record_id > :after ORDER BY record_id LIMIT 1 OFFSET :skipped"

RECORDS = (
    f"SELECT record_id, {LISTED} FROM records"
    " WHERE record_id > :after AND record_id <= :last"
    " AND instr(:states, state) > 0 AND (:route IS NULL OR route = :route)"  # no state's name is a part of another's
    " ORDER BY record_id LIMIT :batch_max"
)

# What is in progress is not settled: with that the index says which records have to be looked at at all.
ABANDONED = (
    f"SELECT record_id, {LISTED} FROM records WHERE request IS NOT NULL AND settled_at_ms IS NULL"
    " AND lease_until_ms BETWEEN :after_ms AND :now_ms AND (lease_until_ms > :after_ms OR record_id > :after)"
    f" AND {_may(Event.TAKE_OVER)} ORDER BY lease_until_ms, record_id LIMIT :batch_max"
)

RECORD_COUNTS = (
    "SELECT route, state, count(*), coalesce(sum(length(response)), 0), min(claimed_at_ms)"
    " FROM records GROUP BY route, state"
)

# --- answers, counted by day ----------------------------------------------------------------------

COUNT_ANSWERS = (
    "INSERT INTO answers (day, route, recorded, replayed) VALUES (:day, :route, :recorded, :replayed)"
    " ON CONFLICT (day, route) DO UPDATE SET"
    " recorded = answers.recorded + :recorded, replayed = answers.replayed + :replayed"
)

FORGET_ANSWERS = "DELETE FROM answers WHERE day <= :last_day"

ANSWER_COUNTS = "SELECT route, sum(recorded), sum(replayed) FROM answers WHERE day > :last_day GROUP BY route"

# --- what belongs to the whole store ------------------------------------------------------------

TICK = "UPDATE meta SET clock_ms = max(clock_ms, :now_ms) RETURNING clock_ms"

CLOCK = "SELECT clock_ms FROM meta"

SECRET = "SELECT secret, secret_check FROM meta"  # noqa: S105 - the name of a column

KEEP_SECRET = "UPDATE meta SET secret = :secret, secret_check = :secret_check"  # noqa: S105 as above
