"""The Lua of the transitions, built once from `protocol.states`: one script each, one round trip.

No state is written here by hand. What a script requires (the states that its event may come from, and
its guard) and the state that it leads to are the table's; only what else it writes stands here.

What is kept of a record has one hash tag, so that a cluster keeps it on one node:

* the record, `LAYOUT` and then the fingerprint and the route: small, kept until it may be forgotten;
* the response, beside it only while the record is completed: kept for the lifetime;
* the request and the journal, beside it only until the record is completed: kept as long as the record;
* the history of its id, a list of when to forget an entry and the entry: kept as long as any of them.

Redis deletes all of them by itself, a little after those times. That is garbage collection and decides nothing:
what a script is to decide, it decides by the instants in the record and in the history.

Time is the server's. It may step back; so a record's time is never before its last write, and for one process
never before what that server told it.

Every answer begins with the identity of the record that was asked about, so that an answer that went
astray is noticed (`redis_plan`).

Answers are counted in a hash for each day, under one hash tag: a field for each route and kind of answer.
The server deletes it when the day is long over.

`#!lua` makes a server refuse a script on a replica, and, without `allow-oom`, when its memory is full,
before the script runs. What begins a claim is refused then, and what is not about a handler that has run:
that can settle.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field, fields
from typing import Any, cast

from retrysafe.model import Record, State
from retrysafe.protocol.effects import Transition
from retrysafe.protocol.states import GUARDS, Event, Guard, sources, target
from retrysafe.protocol.transitions import (
    ClaimIfAbsent,
    ClaimIfRetryable,
    CompleteIfHeld,
    CompleteIfUnknown,
    DiscardIfHeld,
    ForgetIfOver,
    ForgetIfSeen,
    KeepJournalIfHeld,
    MarkUnknownIfHeld,
    MarkUnknownIfLapsed,
    Read,
    ReleaseIfHeld,
    ReleaseIfUnknown,
    RenewIfHeld,
    ReplaceResponseIfSame,
    RevokeIfSeen,
    TakeOverIfLapsed,
)

SERVER_CLOCK = "(function(t) return t[1] * 1000 + math.floor(t[2] / 1000) end)(redis.call('TIME'))"

VERSION = 1
NEWER = "RETRYSAFENEWER"
IDENTITY_BYTES = 8
GRACE_MS = 60_000  # how much later than it may a server deletes: what is kept for 0 ms must still be seen once

# How the parts of a record are packed: the same for Python's `struct` as for Lua's, but for the lengths of strings.
# An instant that there is none of is 0.
LAYOUT: dict[str, str] = {
    "version": "B",
    "state": "c",
    "identity": f"{IDENTITY_BYTES}s",
    "token": "16s",
    "attempt": "I",
    "created_at_ms": "Q",
    "claimed_at_ms": "Q",
    "written_at_ms": "Q",
    "lease_until_ms": "Q",
    "settled_at_ms": "Q",
    "expires_at_ms": "Q",
    "forget_at_ms": "Q",
    "fingerprint_bytes": "H",
}
_IN_LUA = {
    "B": "B",
    "c": "c1",
    f"{IDENTITY_BYTES}s": f"c{IDENTITY_BYTES}",
    "16s": "c16",
    "H": "H",
    "I": "I4",
    "Q": "I8",
}
_FORMAT = ">" + "".join(_IN_LUA[kind] for kind in LAYOUT.values())

LETTERS: dict[State, str] = {state: state.value[0] for state in State}
"""How a state is written in a record: its initial."""

_GUARDS = {
    Guard.HELD: "record.token == token",
    Guard.SEEN: "record.token == seen_token",
    Guard.SAME: "record.token == seen_token and redis.call('GET', KEYS[2]) == seen_response",
    Guard.UNCHANGED: "record.token == seen_token and record.state == seen_state",
    Guard.LAPSED: "record.token == seen_token and record.lease_until_ms <= now_ms",
    Guard.FORGETTABLE: "record.token == seen_token and record.forget_at_ms <= now_ms",
    Guard.LIFETIME_OVER: "record.expires_at_ms > 0 and record.expires_at_ms <= now_ms",
}


@dataclass(frozen=True, slots=True)
class Script:
    """A text in Lua, and the digest by which a server knows it."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)


class Scripts:
    """Every script, with one kind of time in it.

    Args:
        clock: an expression in Lua, in milliseconds. `KEYS[1]` is the record that is asked about.

    What changes a record, and a purge of it, is given all its keys but the history's. A claim and a read are given
    the record and the response, a claim that brings a request the request's key as well; what is about a history, the
    record and the history; and who asks for everything, all of them.
    """

    def __init__(self, clock: str = SERVER_CLOCK) -> None:
        self.claim = Script(_CLAIM.replace(_CLOCK, clock))
        self.read = Script(_READ.replace(_CLOCK, clock))
        self.details = Script(_DETAILS.replace(_CLOCK, clock))
        self.add_history = Script(_ADD_HISTORY.replace(_CLOCK, clock))
        self.purge = Script(_PURGE.replace(_CLOCK, clock))
        self.purge_history = Script(_PURGE_HISTORY.replace(_CLOCK, clock))
        self.keep = Script(_KEEP)
        self.now = Script(_NOW.replace(_CLOCK, clock))
        self.count = Script(_COUNT)
        self.counts = Script(_COUNTS)
        self.changes = {kind: Script(text.replace(_CLOCK, clock)) for kind, text in _CHANGES.items()}


def arguments(kind: type[Transition[Any]]) -> tuple[str, ...]:
    """The names of what a script of this transition is given after the identity and the time told, in order."""
    names = [part.name for part in fields(cast(Any, kind)) if part.name != "record_id"]
    return tuple("token" if name == "claim" else name for name in names)


# --- what every script is made of -----------------------------------------------------------------

_CLOCK = "<clock>"
_CLAIMS, _SETTLES = "", " flags=allow-oom"
_PARTS = ", ".join(f"record.{name}" for name in LAYOUT)
_LUA_VALUES = f"struct.pack('{_FORMAT}', {_PARTS})"


def _at(part: str) -> int:
    """Where a part of a record begins, as Lua counts."""
    before = [kind for name, kind in LAYOUT.items() if list(LAYOUT).index(name) < list(LAYOUT).index(part)]
    return struct.calcsize(">" + "".join(before)) + 1


_TIME_OF_THE_RECORD = f"now_ms = math.max(now_ms, (struct.unpack('>{_IN_LUA['Q']}', value, {_at('written_at_ms')})))"
_UNPACKED = f"{_PARTS} = struct.unpack('{_FORMAT}', value)"


def _head(names: tuple[str, ...], flags: str = _SETTLES, unpacked: str = _UNPACKED) -> str:
    """Its arguments as names, and the record as a table if there is one and it is wanted."""
    lines = [f"#!lua{flags}", "local identity = ARGV[1]"]
    for position, name in enumerate(names, 3):
        given = f"ARGV[{position}]"
        lines.append(f"local {name} = {f'tonumber({given})' if name.endswith('_ms') else given}")
    return (
        "\n".join(lines)
        + f"""
local now_ms = math.max({_CLOCK}, tonumber(ARGV[2]))
local value = redis.call('GET', KEYS[1])
local record = {{}}
if value then
  if string.byte(value) ~= {VERSION} then return redis.error_reply('{NEWER} record') end
  {unpacked}
  {_TIME_OF_THE_RECORD}
end
"""
    )


_ANSWER_RECORD = f"""
local response = false
if string.sub(value, {_at("state")}, {_at("state")}) == '{LETTERS[State(target(Event.COMPLETE) or "")]}' then
  response = redis.call('GET', KEYS[2])
end
return {{identity, now_ms, value, response}}
"""

_STORE = "value = {values} .. rest redis.call('SET', KEYS[1], value, {expiry})"
_KEPT_MS = f"math.max(0, record.forget_at_ms - now_ms) + {GRACE_MS}"
_AS_LONG_AS_KEPT = f"'PX', {_KEPT_MS}"
_AS_IT_WAS = "'KEEPTTL'"
_FINISHED = "redis.call('DEL', KEYS[3], KEYS[4])"
_GOES_ON = f"for at = 3, 4 do redis.call('PEXPIRE', KEYS[at], {_KEPT_MS}) end"


def _may(event: Event) -> str:
    """The record is in a state from which `event` may happen."""
    letters = "".join(LETTERS[state] for state in sources(event))
    return f"string.find('{letters}', record.state, 1, true)"


def _move(event: Event, writes: str = "", expiry: str = _AS_LONG_AS_KEPT) -> str:
    """Bring the record to where `event` leads, which may be out of the table."""
    after = target(event)
    if after is None:
        return "redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])"
    store = _STORE.format(values=_LUA_VALUES, expiry=expiry)
    beside = _FINISHED if after == target(Event.COMPLETE) else _GOES_ON
    return f"""
local rest = string.sub(value, struct.size('{_FORMAT}') + 1)
record.state = '{LETTERS[after]}' record.written_at_ms = now_ms
{writes}
{store}
{beside if expiry == _AS_LONG_AS_KEPT else ""}"""


def _compare_and_set(
    kind: type[Transition[Any]],
    event: Event,
    writes: str = "",
    flags: str = _SETTLES,
    expiry: str = _AS_LONG_AS_KEPT,
) -> str:
    """Move the record if the table and the guard of `event` allow it."""
    return f"""{_head(arguments(kind), flags)}
if not value or not ({_may(event)} and {_GUARDS[GUARDS[event]]}) then return identity .. '0' end
{_move(event, writes, expiry)}
return identity .. '1'
"""


# --- what each of them writes ---------------------------------------------------------------------

_LEASE = "record.lease_until_ms = now_ms + lease_ms record.forget_at_ms = record.lease_until_ms + forget_after_ms"
_NEW_CLAIM = f"""
record.token = token record.attempt = record.attempt + 1 record.claimed_at_ms = now_ms record.settled_at_ms = 0
{_LEASE}"""
_SETTLED = "record.settled_at_ms = now_ms record.forget_at_ms = now_ms + forget_after_ms"
_COMPLETED = f"""
record.settled_at_ms = now_ms record.expires_at_ms = now_ms + lifetime_ms
record.forget_at_ms = record.expires_at_ms + forget_after_ms
redis.call('SET', KEYS[2], response, 'PX', lifetime_ms + {GRACE_MS})"""
_RESEALED = f"redis.call('SET', KEYS[2], response, {_AS_IT_WAS})"
_JOURNALED = "redis.call('SET', KEYS[4], journal, 'PX', math.max(1, redis.call('PTTL', KEYS[1])))"

_CLAIM = f"""{_head(arguments(ClaimIfAbsent), _CLAIMS, unpacked="")}
if not value then
  record.version = {VERSION} record.state = '{LETTERS[State(target(Event.CLAIM) or "")]}'
  record.identity = identity record.token = token record.attempt = 1
  record.created_at_ms = now_ms record.claimed_at_ms = now_ms record.written_at_ms = now_ms
  record.settled_at_ms = 0 record.expires_at_ms = 0 record.fingerprint_bytes = #fingerprint
  local rest = fingerprint .. route
  {_LEASE}
  {_STORE.format(values=_LUA_VALUES, expiry=_AS_LONG_AS_KEPT)}
  if KEYS[3] then redis.call('SET', KEYS[3], request, {_AS_LONG_AS_KEPT}) end
end
{_ANSWER_RECORD}"""

_READ = f"""{_head(arguments(Read), unpacked="")}
if not value then return {{identity, now_ms}} end
{_ANSWER_RECORD}"""

_DETAILS = f"""{_head((), unpacked="")}
local history = {{}}
for _, entry in ipairs(redis.call('LRANGE', KEYS[5], 0, -1)) do
  local forget_at_ms, at = struct.unpack('>{_IN_LUA["Q"]}', entry)
  if forget_at_ms > now_ms then history[#history + 1] = string.sub(entry, at) end
end
local beside = {{false, false, false}}
if value then
  for at = 2, 4 do beside[at - 1] = redis.call('GET', KEYS[at]) end
end
return {{identity, now_ms, value, beside[1], beside[2], beside[3], history}}
"""

# The entries are kept as long as that of them that is kept longest.
_ADD_HISTORY = f"""{_head(("entry", "keep_ms"), unpacked="")}
local expires_ms = math.max(redis.call('PTTL', KEYS[2]), keep_ms + {GRACE_MS})
redis.call('RPUSH', KEYS[2], struct.pack('>{_IN_LUA["Q"]}', now_ms + keep_ms) .. entry)
redis.call('PEXPIRE', KEYS[2], expires_ms)
return identity .. '1'
"""

# What a purge does to a history, or would do: 'h' if something of it is over; nothing if nothing is.
_PURGE_HISTORY = f"""{_head(("act",), unpacked="")}
local entries, kept = redis.call('LRANGE', KEYS[2], 0, -1), {{}}
for _, entry in ipairs(entries) do
  if struct.unpack('>{_IN_LUA["Q"]}', entry) > now_ms then kept[#kept + 1] = entry end
end
if #kept == #entries then return identity end
if act == '1' then
  local expires_ms = math.max(1, redis.call('PTTL', KEYS[2]))
  redis.call('DEL', KEYS[2])
  for _, entry in ipairs(kept) do redis.call('RPUSH', KEYS[2], entry) end
  redis.call('PEXPIRE', KEYS[2], expires_ms)
end
return identity .. 'h'
"""

_CHANGES: dict[type[Transition[Any]], str] = {
    TakeOverIfLapsed: _compare_and_set(TakeOverIfLapsed, Event.TAKE_OVER, _NEW_CLAIM, _CLAIMS),
    ClaimIfRetryable: _compare_and_set(ClaimIfRetryable, Event.RECLAIM, _NEW_CLAIM, _CLAIMS),
    RenewIfHeld: _compare_and_set(RenewIfHeld, Event.RENEW, _LEASE),
    KeepJournalIfHeld: _compare_and_set(KeepJournalIfHeld, Event.JOURNAL, _JOURNALED, expiry=_AS_IT_WAS),
    CompleteIfHeld: _compare_and_set(CompleteIfHeld, Event.COMPLETE, _COMPLETED),
    ReleaseIfHeld: _compare_and_set(ReleaseIfHeld, Event.RELEASE, _SETTLED),
    DiscardIfHeld: _compare_and_set(DiscardIfHeld, Event.DISCARD),
    MarkUnknownIfHeld: _compare_and_set(MarkUnknownIfHeld, Event.GIVE_UP, _SETTLED),
    MarkUnknownIfLapsed: _compare_and_set(MarkUnknownIfLapsed, Event.ABANDON, _SETTLED),
    CompleteIfUnknown: _compare_and_set(CompleteIfUnknown, Event.RESOLVE, _COMPLETED),
    ReleaseIfUnknown: _compare_and_set(ReleaseIfUnknown, Event.RULE_OUT, _SETTLED),
    RevokeIfSeen: _compare_and_set(RevokeIfSeen, Event.REVOKE, _SETTLED),
    ForgetIfSeen: _compare_and_set(ForgetIfSeen, Event.ERASE),
    ReplaceResponseIfSame: _compare_and_set(ReplaceResponseIfSame, Event.RESEAL, _RESEALED, _CLAIMS, _AS_IT_WAS),
    ForgetIfOver: _compare_and_set(ForgetIfOver, Event.FORGET),
}

# What a purge does to one record, or, unless it is to act, would do: the initial of it; nothing if nothing is due.
_PURGE = f"""{_head(("act",))}
if not value then return identity end
local over = record.forget_at_ms <= now_ms
if over and {_may(Event.FORGET)} then
  if act == '1' then {_move(Event.FORGET)} end
  return identity .. 'f'
end
if {_may(Event.EXPIRE)} and {_GUARDS[GUARDS[Event.EXPIRE]]} then
  if act == '1' then redis.call('DEL', KEYS[2], KEYS[3], KEYS[4]) {_move(Event.EXPIRE, expiry=_AS_IT_WAS)} end
  return identity .. 'e'
end
if over and {_may(Event.ABANDON)} and record.lease_until_ms <= now_ms then
  if act == '1' then {_move(Event.ABANDON, "record.settled_at_ms = now_ms", _AS_IT_WAS)} end
  return identity .. 'a'
end
return identity
"""

# What is kept of the store as a whole: what is there, or else what is given, if anything is.
_KEEP = """#!lua
if ARGV[1] ~= '' then redis.call('SET', KEYS[1], ARGV[1], 'NX') end
return redis.call('GET', KEYS[1])
"""

# The time, where it is not about a record.
_NOW = f"""#!lua flags=allow-oom
return {{ARGV[1], {_CLOCK}}}
"""

# Add to the counts of one day, which are kept for so many milliseconds: fields, each with its number.
_COUNT = """#!lua
for position = 3, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], ARGV[position], ARGV[position + 1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return ARGV[1] .. '1'
"""

# The counts of these days, each as fields and numbers in turn.
_COUNTS = """#!lua flags=allow-oom
local days = {}
for position, key in ipairs(KEYS) do days[position] = redis.call('HGETALL', key) end
return {ARGV[1], days}
"""

_KNOWN = {*LAYOUT, "fingerprint", "response", "route"} - {"version", "identity", "written_at_ms", "fingerprint_bytes"}
assert {part.name for part in fields(Record)} == _KNOWN, "a record has a part that is not packed"
