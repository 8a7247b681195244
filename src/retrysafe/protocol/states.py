"""The life of a record: ONE table, and nothing else decides what may follow what.

House rules:

* Every transition of every store is an entry here. The memory store looks its moves up in the
  table; the SQL of the other stores is built from it; the diagram in the docs is drawn from it.
* The table does not know clocks or tokens. `Guard` names the condition that a transition checks
  besides the state, in the same atomic operation; a store that checks the state and not the guard
  is wrong.
* Absence of a record is `None`, on either side.

Why these moves and no others: a record in progress may become anything, but only by its owner (the
token says who that is) or after its lease. `unknown` is left only by knowledge: the late owner, or
somebody who looked. An operator may take a claim away, or forget a record that nobody holds: by hand
only, and it is kept in the record's history. `completed` never runs again. `retryable` is the one state
from which a second attempt starts without a lapsed lease, because it is reached only with proof that
nothing happened (contract part D, R37-R45).
"""

from __future__ import annotations

from enum import StrEnum

from retrysafe.model import State


class Event(StrEnum):
    """What can happen to a record; one store transition each, named like it."""

    CLAIM = "claim"
    TAKE_OVER = "take over"
    RECLAIM = "claim again"
    RENEW = "renew"
    JOURNAL = "keep journal"
    COMPLETE = "complete"
    RELEASE = "release"
    DISCARD = "discard"
    GIVE_UP = "give up"
    ABANDON = "abandon"
    RESOLVE = "resolve as completed"
    RULE_OUT = "resolve as not done"
    REVOKE = "revoke"
    RESEAL = "reseal"
    ERASE = "forget by hand"
    EXPIRE = "expire"
    FORGET = "forget"


class Guard(StrEnum):
    """The condition that a transition checks together with the state."""

    ABSENT = "no record"
    HELD = "token is mine"
    LAPSED = "lease lapsed, token as seen"
    SEEN = "token as seen"
    SAME = "token and response as seen"
    UNCHANGED = "token and state as seen"
    LIFETIME_OVER = "lifetime over"
    FORGETTABLE = "time to forget has come, token as seen"


GUARDS: dict[Event, Guard] = {
    Event.CLAIM: Guard.ABSENT,
    Event.TAKE_OVER: Guard.LAPSED,
    Event.RECLAIM: Guard.SEEN,
    Event.RENEW: Guard.HELD,
    Event.JOURNAL: Guard.HELD,
    Event.COMPLETE: Guard.HELD,
    Event.RELEASE: Guard.HELD,
    Event.DISCARD: Guard.HELD,
    Event.GIVE_UP: Guard.HELD,
    Event.ABANDON: Guard.LAPSED,
    Event.RESOLVE: Guard.SEEN,
    Event.RULE_OUT: Guard.SEEN,
    Event.REVOKE: Guard.SEEN,
    Event.RESEAL: Guard.SAME,
    Event.ERASE: Guard.UNCHANGED,
    Event.EXPIRE: Guard.LIFETIME_OVER,
    Event.FORGET: Guard.FORGETTABLE,
}

UNFINISHED: tuple[State, ...] = (State.IN_PROGRESS, State.RETRYABLE, State.UNKNOWN)
"""What an attempt may still go on from: as long as a record is one of these, its request and its journal are kept."""

TABLE: dict[tuple[State | None, Event], State | None] = {
    (None, Event.CLAIM): State.IN_PROGRESS,
    # the owner, by its token
    (State.IN_PROGRESS, Event.RENEW): State.IN_PROGRESS,
    (State.IN_PROGRESS, Event.JOURNAL): State.IN_PROGRESS,
    (State.IN_PROGRESS, Event.COMPLETE): State.COMPLETED,
    (State.IN_PROGRESS, Event.RELEASE): State.RETRYABLE,
    (State.IN_PROGRESS, Event.DISCARD): None,
    (State.IN_PROGRESS, Event.GIVE_UP): State.UNKNOWN,
    # somebody else, after the lease
    (State.IN_PROGRESS, Event.TAKE_OVER): State.IN_PROGRESS,
    (State.IN_PROGRESS, Event.ABANDON): State.UNKNOWN,
    # the late owner, whose token still stands, settles what others gave up on
    (State.UNKNOWN, Event.COMPLETE): State.COMPLETED,
    (State.UNKNOWN, Event.RELEASE): State.RETRYABLE,
    (State.UNKNOWN, Event.DISCARD): None,
    # a new attempt, because the last one is known to have done nothing
    (State.RETRYABLE, Event.RECLAIM): State.IN_PROGRESS,
    # somebody who looked on the other side, a person or a program
    (State.UNKNOWN, Event.RESOLVE): State.COMPLETED,
    (State.UNKNOWN, Event.RULE_OUT): State.RETRYABLE,
    # an operator, by hand
    (State.IN_PROGRESS, Event.REVOKE): State.RETRYABLE,
    (State.COMPLETED, Event.ERASE): None,
    (State.EXPIRED, Event.ERASE): None,
    (State.RETRYABLE, Event.ERASE): None,
    (State.UNKNOWN, Event.ERASE): None,
    # the same answer in other bytes: encrypted, or under another key
    (State.COMPLETED, Event.RESEAL): State.COMPLETED,
    # time
    (State.COMPLETED, Event.EXPIRE): State.EXPIRED,
    (State.COMPLETED, Event.FORGET): None,
    (State.EXPIRED, Event.FORGET): None,
    (State.RETRYABLE, Event.FORGET): None,
    (State.UNKNOWN, Event.FORGET): None,
}


def sources(event: Event) -> tuple[State, ...]:
    """The states from which `event` may happen, in the order of `State`."""
    return tuple(state for state in State if (state, event) in TABLE)


def target(event: Event) -> State | None:
    """The state that `event` leads to, whichever it comes from; None is absence."""
    targets = {after for (_, happened), after in TABLE.items() if happened is event}
    (only,) = targets
    return only


def diagram() -> str:
    """The table as a Mermaid state diagram, for the docs."""
    lines = ["stateDiagram-v2"]
    for (before, event), after in TABLE.items():
        source, sink = (before or "[*]"), (after or "[*]")
        lines.append(f"    {source} --> {sink}: {event} ({GUARDS[event]})")
    return "\n".join(lines) + "\n"
