"""The items of the DynamoDB store, and the conditional writes that move them, built once from `protocol.states`.

One table with one key, `record_id`, holds five kinds of items:

* a record, under its 32 bytes: the attributes of `retrysafe.model.Record`, and some of the store's own.
  `dated_at_ms` is when it was last written, so that nothing is dated before it. `write_id` says by which
  request, so that one that is sent again after a lost reply recognises itself. `forget_at_s` is when the
  service may delete it by itself. `parts` and `parts_id` say where a response is that is not in the item;
  `response_bytes` and `response_head` what people who look at many records want of it.
  `request` and `journal` are in it, or in parts as well (`request_parts_id` and the like), until it is completed.
* a part of a response, a request or a journal, under 18 bytes: what `parts_id` says, and its number.
* the history of a record id, under `history_key`.
* the answers of one route on one day, under `answers_key`.
* what belongs to the whole store, under `META`.

No state is written here by hand: what a write requires and where it leads are the table's. Names in an
expression are `#name`, values `:name`, both by the name of the attribute; a request carries those that its
expressions mention, because the service refuses any other.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple, cast

from retrysafe.model import Record, State
from retrysafe.protocol.effects import Transition
from retrysafe.protocol.states import GUARDS, Event, Guard, sources, target
from retrysafe.protocol.transitions import (
    ANSWER_DAYS_KEPT,
    DAY_MS,
    STORED_HEAD_BYTES,
    AnswerCount,
    ClaimIfAbsent,
    ClaimIfRetryable,
    CompleteIfHeld,
    CompleteIfUnknown,
    DiscardIfHeld,
    ForgetIfOver,
    ForgetIfSeen,
    KeepJournalIfHeld,
    ListRecords,
    MarkUnknownIfHeld,
    MarkUnknownIfLapsed,
    ReleaseIfHeld,
    ReleaseIfUnknown,
    RenewIfHeld,
    ReplaceResponseIfSame,
    RevokeIfSeen,
    TakeOverIfLapsed,
)

Value = bytes | int | str | tuple[bytes, ...] | None
Values = Mapping[str, Value]
Item = Mapping[str, Mapping[str, Any]]
"""An item as the service spells it: each value under the letter of its type."""

KEY = "record_id"
META = b"retrysafe"
_ANSWERS = b"answers"
_HISTORY = b"history"

# A failed claim pays for the whole item that it found, a kilobyte at a time and from a budget that one key
# soon exhausts; reading a part pays for four kilobytes at a time. So an item keeps only what is small.
INLINE_BYTES_MAX = 8 << 10
PART_BYTES = 384 << 10  # an item may have 400 KB, names and all

# The service deletes late, by up to days; and never early, if its clock and the store's differ by less than this.
FORGET_GRACE_S = 3_600


class Change(NamedTuple):
    """A conditional write on one record.

    Attributes:
        event: what it does.
        condition: of the service's condition expression.
        update: of its update expression; empty if the item is deleted.
        drops: the contents that it exchanges or removes, whose parts may go.
    """

    event: Event
    condition: str
    update: str
    drops: Sequence[str]


CONTENTS = ("response", "request", "journal")
BESIDE = ("request", "journal")


def names_of_parts(of: str) -> tuple[str, str]:
    """The attributes that say in which parts a content of a record is: their id, and how many."""
    return ("parts_id", "parts") if of == "response" else (f"{of}_parts_id", f"{of}_parts")


def _names(of: Sequence[str]) -> str:
    """All attributes in which these contents may be."""
    return ", ".join(f"#{name}" for one in of for name in (one, *names_of_parts(one)))


_GUARDS = {
    Guard.HELD: "#token = :token",
    Guard.SEEN: "#token = :seen_token",
    Guard.SAME: "#token = :seen_token AND #response = :seen_response",
    Guard.UNCHANGED: "#token = :seen_token AND #state = :seen_state",
    Guard.LAPSED: "#token = :seen_token AND #lease_until_ms <= :now_ms",
    Guard.FORGETTABLE: "#token = :seen_token AND #forget_at_ms <= :now_ms",
    Guard.LIFETIME_OVER: "#token = :seen_token AND #expires_at_ms <= :now_ms",
}

_STATES = {state.value: state.value for state in State}  # as values of expressions: `:in_progress` and the like


def _may(event: Event) -> str:
    """The record is in a state from which `event` may happen."""
    return "#state IN ({})".format(", ".join(f":{state}" for state in sources(event)))


def _change(
    event: Event, writes: str = "", removes: str = "", drops: Sequence[str] = (), *, seen_in_parts: bool = False
) -> Change:
    """Move a record if the table, the guard of `event` and its own date allow it: it is never dated back.

    What is in parts is never changed: two responses with the same `parts_id` are the same.
    """
    guard = _GUARDS[GUARDS[event]]
    if seen_in_parts:
        guard = guard.replace("#response = :seen_response", "#parts_id = :seen_parts_id")
    condition = f"{_may(event)} AND {guard} AND #dated_at_ms <= :now_ms"
    after = target(event)
    if after is None:
        return Change(event, condition, "", CONTENTS)
    written = ", ".join(part for part in (f"#state = :{after}", _WRITTEN, writes) if part)
    return Change(event, condition, f"SET {written}" + (f" REMOVE {removes}" if removes else ""), drops)


_WRITTEN = "#write_id = :write_id, #dated_at_ms = :now_ms"
_KEPT = "#forget_at_ms = :forget_at_ms, #forget_at_s = :forget_at_s"
_LEASE = f"#lease_until_ms = :lease_until_ms, {_KEPT}"
_NEW_CLAIM = f"#token = :token, #attempt = #attempt + :one, #claimed_at_ms = :now_ms, {_LEASE}"
_SETTLED = f"#settled_at_ms = :now_ms, {_KEPT}"
_COMPLETED = f"#expires_at_ms = :expires_at_ms, {_SETTLED}"
_SHOWN = "#response_bytes = :response_bytes, #response_head = :response_head"
_INLINE = f"#response = :response, {_SHOWN}"
_IN_PARTS = f"#parts = :parts, #parts_id = :parts_id, {_SHOWN}"

_JOURNAL_IN_PARTS = "#journal_parts = :journal_parts, #journal_parts_id = :journal_parts_id"
_RESPONSE = ("response",)
_JOURNAL = ("journal",)

CLAIM = f"attribute_not_exists(#{KEY})"

CHANGES: dict[type[Transition[Any]], Change] = {
    TakeOverIfLapsed: _change(Event.TAKE_OVER, _NEW_CLAIM, "#settled_at_ms"),
    ClaimIfRetryable: _change(Event.RECLAIM, _NEW_CLAIM, "#settled_at_ms"),
    RenewIfHeld: _change(Event.RENEW, _LEASE),
    KeepJournalIfHeld: _change(Event.JOURNAL, "#journal = :journal", "#journal_parts, #journal_parts_id", _JOURNAL),
    CompleteIfHeld: _change(Event.COMPLETE, f"{_INLINE}, {_COMPLETED}", _names(BESIDE), BESIDE),
    ReleaseIfHeld: _change(Event.RELEASE, _SETTLED),
    DiscardIfHeld: _change(Event.DISCARD),
    MarkUnknownIfHeld: _change(Event.GIVE_UP, _SETTLED),
    MarkUnknownIfLapsed: _change(Event.ABANDON, _SETTLED),
    CompleteIfUnknown: _change(Event.RESOLVE, f"{_INLINE}, {_COMPLETED}", _names(BESIDE), BESIDE),
    ReleaseIfUnknown: _change(Event.RULE_OUT, _SETTLED),
    RevokeIfSeen: _change(Event.REVOKE, _SETTLED),
    ForgetIfSeen: _change(Event.ERASE),
    ReplaceResponseIfSame: _change(Event.RESEAL, _INLINE, "#parts, #parts_id", _RESPONSE),
    ForgetIfOver: _change(Event.FORGET),
}

IN_PARTS: dict[type[Transition[Any]], Change] = {
    KeepJournalIfHeld: _change(Event.JOURNAL, _JOURNAL_IN_PARTS, "#journal", _JOURNAL),
    CompleteIfHeld: _change(Event.COMPLETE, f"{_IN_PARTS}, {_COMPLETED}", _names(BESIDE), BESIDE),
    CompleteIfUnknown: _change(Event.RESOLVE, f"{_IN_PARTS}, {_COMPLETED}", _names(BESIDE), BESIDE),
}
"""The same, where what is to be kept is in parts."""

RESEALS: dict[tuple[bool, bool], Change] = {
    (False, False): CHANGES[ReplaceResponseIfSame],
    (False, True): _change(Event.RESEAL, _IN_PARTS, "#response", _RESPONSE),
    (True, False): _change(Event.RESEAL, _INLINE, "#parts, #parts_id", _RESPONSE, seen_in_parts=True),
    (True, True): _change(Event.RESEAL, _IN_PARTS, "#response", _RESPONSE, seen_in_parts=True),
}
"""How a response is exchanged: the one that was seen is in parts, the other is to be."""

# --- purging -------------------------------------------------------------------------------------

DUE = f"#forget_at_ms <= :now_ms OR #next_over_at_ms <= :now_ms OR ({_may(Event.EXPIRE)} AND #expires_at_ms <= :now_ms)"

# What a purge does to a record that is due, the first that may be. To abandon keeps the date: it is over then too.
PURGE = (
    _change(Event.FORGET),
    _change(Event.EXPIRE, removes=f"{_names(CONTENTS)}, #response_bytes, #response_head", drops=CONTENTS),
    _change(Event.ABANDON, "#settled_at_ms = :now_ms"),
)


# What is no record goes when it is over, unless somebody has dated it anew meanwhile.
FORGET = {"ConditionExpression": "#forget_at_ms <= :now_ms"}
KEEP_PART = {
    "ConditionExpression": f"attribute_exists(#{KEY})",
    "UpdateExpression": "SET #forget_at_ms = :forget_at_ms, #forget_at_s = :forget_at_s",
}

# --- histories: an entry is added by whoever keeps it longest, or to what is kept for longer anyway ---

_UNWRITTEN = "(attribute_not_exists(#write_id) OR #write_id <> :write_id)"
_ADDED = (
    "SET #write_id = :write_id, #entries = list_append(if_not_exists(#entries, :nothing), :added),"
    " #next_over_at_ms = if_not_exists(#next_over_at_ms, :forget_at_ms)"
)
_LONGEST = "(attribute_not_exists(#forget_at_ms) OR #forget_at_ms <= :forget_at_ms)"
HISTORY_ADDS = (
    {
        "ConditionExpression": f"{_LONGEST} AND {_UNWRITTEN}",
        "UpdateExpression": f"{_ADDED}, #forget_at_ms = :forget_at_ms, #forget_at_s = :forget_at_s",
    },
    {"ConditionExpression": f"#forget_at_ms > :forget_at_ms AND {_UNWRITTEN}", "UpdateExpression": _ADDED},
)
HISTORY_TRIM = {
    "ConditionExpression": "#write_id = :seen_write_id",
    "UpdateExpression": "SET #write_id = :write_id, #entries = :kept, #next_over_at_ms = :next_over_at_ms",
}
HISTORY_FORGET = {"ConditionExpression": "#write_id = :seen_write_id"}


def history_key(record_id: bytes) -> bytes:
    """The key of a history: 39 bytes, which nothing else has."""
    return _HISTORY + record_id


# --- looking at many ------------------------------------------------------------------------------

_COUNTED = ("state", "route", "claimed_at_ms", "response_bytes", "day", "recorded", "replayed")

CENSUS = {
    "ProjectionExpression": ", ".join(f"#{name}" for name in _COUNTED),
    "FilterExpression": "attribute_exists(#state) OR attribute_exists(#day)",
}
HEADS = {
    "ProjectionExpression": f"#{KEY}, #response_head",
    "FilterExpression": "attribute_exists(#response_head)",
}
_LISTED = {
    "ProjectionExpression": ", ".join(
        f"#{name}" for name in (KEY, *(field.name for field in fields(cast(Any, Record)) if field.name != "response"))
    )
}
ABANDONED = _LISTED | {
    "FilterExpression": "(attribute_exists(#request) OR attribute_exists(#request_parts_id))"
    f" AND {_may(Event.TAKE_OVER)} AND #lease_until_ms <= :now_ms"
}


def listed(wish: ListRecords) -> dict[str, str]:
    """Which records are listed, and what of them."""
    states = ", ".join(f":{state}" for state in wish.states)
    of_route = "" if wish.route is None else " AND #route = :route"
    return _LISTED | {"FilterExpression": f"#state IN ({states}){of_route}"}


COUNT = (
    "SET #route = :route, #day = :day, #forget_at_ms = :forget_at_ms, #forget_at_s = :forget_at_s"
    " ADD #recorded :recorded, #replayed :replayed"
)


def answers_key(day: int, route: str) -> bytes:
    """The key of the answers of one route on one day: 31 bytes, which no record and no part has."""
    return _ANSWERS + day.to_bytes(8) + hashlib.sha256(route.encode()).digest()[:16]


def count_of(count: AnswerCount, day: int) -> dict[str, Value]:
    """What `COUNT` mentions, for answers of a day."""
    kept = kept_until((day + ANSWER_DAYS_KEPT) * DAY_MS)
    return kept | {"route": count.route, "day": day, "recorded": count.recorded, "replayed": count.replayed}


# --- requests ------------------------------------------------------------------------------------


def marshalled(values: Values) -> dict[str, dict[str, Any]]:
    """Values as the service spells them; None is left out."""
    return {name: _spelled(value) for name, value in values.items() if value is not None}


def _spelled(value: bytes | int | str | tuple[bytes, ...]) -> dict[str, Any]:
    if isinstance(value, bytes):
        return {"B": value}
    if isinstance(value, tuple):
        return {"L": [{"B": one} for one in value]}
    return {"N": str(value)} if isinstance(value, int) else {"S": value}


def mentioned(values: Values, **expressions: str) -> dict[str, Any]:
    """Expressions, and what they mention, as arguments of a request.

    Args:
        values: what may be mentioned; states are known.
        expressions: by the name of the argument; empty ones are left out.
    """
    known = {**_STATES, **values}
    text = " ".join(expressions.values())
    arguments: dict[str, Any] = {name: expression for name, expression in expressions.items() if expression}
    arguments["ExpressionAttributeNames"] = {f"#{name}": name for name in re.findall(r"#(\w+)", text)}
    if names := set(re.findall(r":(\w+)", text)):
        mine = marshalled({name: known[name] for name in names})
        arguments["ExpressionAttributeValues"] = {f":{name}": value for name, value in mine.items()}
    return arguments


def id_of(transition: Transition[Any]) -> bytes:
    """The record that a transition is about."""
    named: Any = getattr(transition, "claim", transition)
    return bytes(named.record_id)


def values_of(transition: Transition[Any], now_ms: int) -> dict[str, Value]:
    """What the change of a transition may mention: its attributes, its claim's token, and its dates."""
    values: dict[str, Value] = {"now_ms": now_ms, "one": 1}
    if claim := getattr(transition, "claim", None):
        values["token"] = claim.token
    for name in ("token", "seen_token", "response", "seen_response", "journal"):
        if hasattr(transition, name):
            values[name] = getattr(transition, name)
    if (seen_state := getattr(transition, "seen_state", None)) is not None:
        values["seen_state"] = seen_state.value
    if (response := values.get("response")) is not None:
        assert isinstance(response, bytes), "a response is bytes"
        values |= {"response_bytes": len(response), "response_head": response[:STORED_HEAD_BYTES]}
    end_ms = now_ms + getattr(transition, "lease_ms", 0) + getattr(transition, "lifetime_ms", 0)
    values["lease_until_ms"] = values["expires_at_ms"] = end_ms
    return values | kept_until(end_ms + getattr(transition, "forget_after_ms", 0))


def kept_until(forget_at_ms: int) -> dict[str, Value]:
    """The two dates until which an item is kept: the store's own, and the service's, which is later."""
    return {"forget_at_ms": forget_at_ms, "forget_at_s": forget_at_ms // 1_000 + FORGET_GRACE_S}


def first_item(claim: ClaimIfAbsent, now_ms: int) -> tuple[Record, dict[str, Value]]:
    """The record that a claim inserts, and its attributes with the store's own."""
    record = claim.first_record(now_ms)
    attributes: dict[str, Value] = {name: getattr(record, name) for name in _ATTRIBUTES}
    attributes["state"] = record.state.value
    return record, attributes | kept_until(record.forget_at_ms) | {KEY: claim.record_id, "dated_at_ms": now_ms}


_ATTRIBUTES = tuple(field.name for field in fields(cast(Any, Record)))


# --- what is in an item --------------------------------------------------------------------------


def number(item: Item, name: str) -> int | None:
    """A number of an item; None if it has none of that name."""
    return int(item[name]["N"]) if name in item else None


def bytes_of(item: Item, name: str) -> bytes | None:
    """Bytes of an item; None if it has none of that name."""
    return bytes(item[name]["B"]) if name in item else None


def dated_at_ms(item: Item) -> int:
    """When the record was last written."""
    return int(item["dated_at_ms"]["N"])


def record_of(item: Item, response: bytes | None) -> Record:
    """An item as a record.

    Args:
        item: the whole of it.
        response: what its parts have, if it has parts.
    """
    return Record(
        state=State(item["state"]["S"]),
        token=bytes(item["token"]["B"]),
        attempt=int(item["attempt"]["N"]),
        fingerprint=bytes(item["fingerprint"]["B"]),
        created_at_ms=int(item["created_at_ms"]["N"]),
        claimed_at_ms=int(item["claimed_at_ms"]["N"]),
        lease_until_ms=int(item["lease_until_ms"]["N"]),
        settled_at_ms=number(item, "settled_at_ms"),
        expires_at_ms=number(item, "expires_at_ms"),
        forget_at_ms=int(item["forget_at_ms"]["N"]),
        response=bytes_of(item, "response") if response is None else response,
        route=item["route"]["S"],
    )


def part_keys(item: Item, of: str) -> Sequence[bytes]:
    """Under which keys the parts of a content of a record are; none if it has no parts."""
    its_id, its_number = names_of_parts(of)
    parts_id, parts = bytes_of(item, its_id), number(item, its_number)
    return [] if parts_id is None or parts is None else keys_of(parts_id, parts)


def keys_of(parts_id: bytes, parts: int) -> Sequence[bytes]:
    """The keys of so many parts."""
    return [parts_id + position.to_bytes(2) for position in range(parts)]


def cut(response: bytes) -> Sequence[bytes]:
    """A response in pieces that an item can hold."""
    return [response[start : start + PART_BYTES] for start in range(0, len(response), PART_BYTES)]
