"""The items of the DynamoDB store, and the conditional writes that move them, built once from `protocol.states`.

One table with one key, `record_id`, holds four kinds of items:

* a record, under its 32 bytes: the attributes of `retrysafe.model.Record`, and some of the store's own.
  `dated_at_ms` is when it was last written, so that nothing is dated before it. `write_id` says by which
  request, so that one that is sent again after a lost reply recognises itself. `forget_at_s` is when the
  service may delete it by itself. `parts` and `parts_id` say where a response is that is not in the item;
  `response_bytes` and `response_head` what people who look at many records want of it.
* a part of such a response, under 18 bytes: what `parts_id` says, and its number.
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
from retrysafe.protocol.effects import (
    ANSWER_DAYS_KEPT,
    DAY_MS,
    STORED_HEAD_BYTES,
    AnswerCount,
    ClaimIfAbsent,
    ClaimIfRetryable,
    CompleteIfHeld,
    DiscardIfHeld,
    ForgetIfOver,
    MarkUnknownIfHeld,
    MarkUnknownIfLapsed,
    ReleaseIfHeld,
    RenewIfHeld,
    ReplaceResponseIfSame,
    TakeOverIfLapsed,
    Transition,
)
from retrysafe.protocol.states import GUARDS, Event, Guard, sources, target

Value = bytes | int | str | None
Values = Mapping[str, Value]
Item = Mapping[str, Mapping[str, Any]]
"""An item as the service spells it: each value under the letter of its type."""

KEY = "record_id"
META = b"retrysafe"
_ANSWERS = b"answers"

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
    """

    event: Event
    condition: str
    update: str


_GUARDS = {
    Guard.HELD: "#token = :token",
    Guard.SEEN: "#token = :seen_token",
    Guard.SAME: "#token = :seen_token AND #response = :seen_response",
    Guard.LAPSED: "#token = :seen_token AND #lease_until_ms <= :now_ms",
    Guard.FORGETTABLE: "#token = :seen_token AND #forget_at_ms <= :now_ms",
    Guard.LIFETIME_OVER: "#token = :seen_token AND #expires_at_ms <= :now_ms",
}

_STATES = {state.value: state.value for state in State}  # as values of expressions: `:in_progress` and the like


def _may(event: Event) -> str:
    """The record is in a state from which `event` may happen."""
    return "#state IN ({})".format(", ".join(f":{state}" for state in sources(event)))


def _change(event: Event, writes: str = "", removes: str = "", *, seen_in_parts: bool = False) -> Change:
    """Move a record if the table, the guard of `event` and its own date allow it: it is never dated back.

    What is in parts is never changed: two responses with the same `parts_id` are the same.
    """
    guard = _GUARDS[GUARDS[event]]
    if seen_in_parts:
        guard = guard.replace("#response = :seen_response", "#parts_id = :seen_parts_id")
    condition = f"{_may(event)} AND {guard} AND #dated_at_ms <= :now_ms"
    after = target(event)
    if after is None:
        return Change(event, condition, "")
    written = ", ".join(part for part in (f"#state = :{after}", _WRITTEN, writes) if part)
    return Change(event, condition, f"SET {written}" + (f" REMOVE {removes}" if removes else ""))


_WRITTEN = "#write_id = :write_id, #dated_at_ms = :now_ms"
_KEPT = "#forget_at_ms = :forget_at_ms, #forget_at_s = :forget_at_s"
_LEASE = f"#lease_until_ms = :lease_until_ms, {_KEPT}"
_NEW_CLAIM = f"#token = :token, #attempt = #attempt + :one, #claimed_at_ms = :now_ms, {_LEASE}"
_SETTLED = f"#settled_at_ms = :now_ms, {_KEPT}"
_COMPLETED = f"#expires_at_ms = :expires_at_ms, {_SETTLED}"
_SHOWN = "#response_bytes = :response_bytes, #response_head = :response_head"
_INLINE = f"#response = :response, {_SHOWN}"
_IN_PARTS = f"#parts = :parts, #parts_id = :parts_id, {_SHOWN}"

CLAIM = f"attribute_not_exists(#{KEY})"

CHANGES: dict[type[Transition[Any]], Change] = {
    TakeOverIfLapsed: _change(Event.TAKE_OVER, _NEW_CLAIM, "#settled_at_ms"),
    ClaimIfRetryable: _change(Event.RECLAIM, _NEW_CLAIM, "#settled_at_ms"),
    RenewIfHeld: _change(Event.RENEW, _LEASE),
    CompleteIfHeld: _change(Event.COMPLETE, f"{_INLINE}, {_COMPLETED}"),
    ReleaseIfHeld: _change(Event.RELEASE, _SETTLED),
    DiscardIfHeld: _change(Event.DISCARD),
    MarkUnknownIfHeld: _change(Event.GIVE_UP, _SETTLED),
    MarkUnknownIfLapsed: _change(Event.ABANDON, _SETTLED),
    ReplaceResponseIfSame: _change(Event.RESEAL, _INLINE, "#parts, #parts_id"),
    ForgetIfOver: _change(Event.FORGET),
}

COMPLETE_IN_PARTS = _change(Event.COMPLETE, f"{_IN_PARTS}, {_COMPLETED}")

RESEALS: dict[tuple[bool, bool], Change] = {
    (False, False): CHANGES[ReplaceResponseIfSame],
    (False, True): _change(Event.RESEAL, _IN_PARTS, "#response"),
    (True, False): _change(Event.RESEAL, _INLINE, "#parts, #parts_id", seen_in_parts=True),
    (True, True): _change(Event.RESEAL, _IN_PARTS, "#response", seen_in_parts=True),
}
"""How a response is exchanged: the one that was seen is in parts, the other is to be."""

# --- purging -------------------------------------------------------------------------------------

DUE = f"#forget_at_ms <= :now_ms OR ({_may(Event.EXPIRE)} AND #expires_at_ms <= :now_ms)"

# What a purge does to a record that is due, the first that may be. To abandon keeps the date: it is over then too.
PURGE = (
    _change(Event.FORGET),
    _change(Event.EXPIRE, removes="#response, #parts, #parts_id, #response_bytes, #response_head"),
    _change(Event.ABANDON, "#settled_at_ms = :now_ms"),
)


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


def _spelled(value: bytes | int | str) -> dict[str, Any]:
    if isinstance(value, bytes):
        return {"B": value}
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
    for name in ("token", "seen_token", "response", "seen_response"):
        if hasattr(transition, name):
            values[name] = getattr(transition, name)
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
    lease_until_ms = now_ms + claim.lease_ms
    record = Record(
        state=_CLAIMED,
        token=claim.token,
        attempt=1,
        fingerprint=claim.fingerprint,
        created_at_ms=now_ms,
        claimed_at_ms=now_ms,
        lease_until_ms=lease_until_ms,
        settled_at_ms=None,
        expires_at_ms=None,
        forget_at_ms=lease_until_ms + claim.forget_after_ms,
        response=None,
        route=claim.route,
    )
    attributes: dict[str, Value] = {name: getattr(record, name) for name in _ATTRIBUTES}
    attributes["state"] = record.state.value
    return record, attributes | kept_until(record.forget_at_ms) | {KEY: claim.record_id, "dated_at_ms": now_ms}


_CLAIMED = State(target(Event.CLAIM) or "")
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


def part_keys(item: Item) -> Sequence[bytes]:
    """Under which keys the parts of a record's response are; none if it has no parts."""
    parts_id, parts = bytes_of(item, "parts_id"), number(item, "parts")
    return [] if parts_id is None or parts is None else keys_of(parts_id, parts)


def keys_of(parts_id: bytes, parts: int) -> Sequence[bytes]:
    """The keys of so many parts."""
    return [parts_id + position.to_bytes(2) for position in range(parts)]


def cut(response: bytes) -> Sequence[bytes]:
    """A response in pieces that an item can hold."""
    return [response[start : start + PART_BYTES] for start in range(0, len(response), PART_BYTES)]
