"""What a flow may ask for. A flow performs nothing itself; a driver performs each effect and sends
the answer back in.

There are two kinds. A `Transition` is for the store: one atomic operation, named by its condition,
whose answer says whether it took effect. The rest is for the door that brought the request.

Each effect is typed by its answer, so that `perform(ClaimIfAbsent(...))` is a `Found` to the type
checker, and a driver that forgets one fails on `assert_never`.
"""

from __future__ import annotations

from collections.abc import Generator
from enum import Enum
from typing import Any, Generic, TypeVar

from retrysafe.model import Claim, Request, Response
from retrysafe.protocol.key import Key
from retrysafe.protocol.policy import Policy
from retrysafe.value import value

T = TypeVar("T")


class Effect(Generic[T]):
    """Something that a flow asks its driver to do; `T` is the type of the answer."""

    __slots__ = ()


Flow = Generator[Effect[Any], Any, T]


def perform(effect: Effect[T]) -> Flow[T]:
    """Ask for one effect; with `yield from`, the type of the answer is known.

    What every request asks for is yielded without this, and its answer's type written beside it: a generator less.
    """
    answer: T = yield effect
    return answer


class Transition(Effect[T]):
    """One atomic operation of a store on one record. `stores.contract` says what each promises."""

    __slots__ = ()


class Claiming(Transition[T]):
    """A transition that gives its caller the right to execute, for `lease_ms`."""

    __slots__ = ()
    lease_ms: int

    def undo(self) -> Transition[bool]:
        """What takes the claim back when its answer reached nobody, so that nothing ran under it."""
        raise NotImplementedError


# --- for the driver -----------------------------------------------------------------------------


@value
class TakeFingerprint(Effect[bytes]):
    """The fingerprint of a request; an effect only so that a driver may do a large one elsewhere."""

    request: Request
    policy: Policy
    secret: bytes


class Settled(Enum):
    """How a settlement ended."""

    DONE = "done"
    REFUSED = "refused"
    OPEN = "open"


@value
class Settle(Effect[Settled]):
    """Write an outcome, with retries while the store is away (contract R49).

    Answered DONE or REFUSED by the store, or OPEN when it stayed away: then the driver goes on trying
    until the lease ends.
    """

    transition: Transition[bool]
    lease_ms: int


class WaitEnd(Enum):
    """How waiting for a record in flight ended."""

    CHANGED = "changed"
    OVER = "over"
    CLIENT_GONE = "client gone"
    STOPPED = "the server stops"


@value
class Waited:
    """How it ended, and since when this request has been waiting: the driver's clock, for its next wait."""

    end: WaitEnd
    began_s: float


@value
class Wait(Effect[Waited]):
    """Wait until the record may no longer be in flight, without holding anything.

    Attributes:
        record_id: of the record.
        wait_ms: how long this request may wait at all.
        began_s: what was answered to its first wait; None for the first.
    """

    record_id: bytes
    wait_ms: int
    began_s: float | None


# --- for the door -------------------------------------------------------------------------------


@value
class ResolveScope(Effect[str | None]):
    """The account that the request belongs to; None if there is none."""


class Unread(Enum):
    """Why a request is not there to be worked on."""

    NO_ACCOUNT = "no account"
    TOO_LARGE = "too large"
    CLIENT_GONE = "client gone"


@value
class Admit(Effect[tuple[str, Request] | Unread]):
    """Find the account that the request belongs to, and only then read its content, up to `body_bytes_max`."""

    body_bytes_max: int


@value
class Authorize(Effect[bool]):
    """May the caller see this account's stored answer now (contract R60)?"""


class Fate(Enum):
    """What a handler says of its own operation. RAN is what is assumed when it says nothing."""

    __hash__ = object.__hash__  # each is one object; the hash of an `Enum` is made in Python, of its name

    RAN = "ran"
    NO_EFFECT = "no effect"
    NOT_RUN = "not run"
    UNKNOWN = "unknown"
    NOT_REACHED = "not reached"  # it says when it is called, and has not said so
    NOT_BEGUN = "not begun"  # it says when its effects begin, and has not said so
    RESUMABLE = "resumable"  # what it has done is in its journal: another attempt goes on from there
    OPEN = "open"  # a step was interrupted that must not be taken again


@value
class Answered:
    """The handler's last response message is there, and not yet sent.

    Attributes:
        response: what it answered; without content if that was too large to keep.
        whole: the content was kept.
        size: length of the content in bytes.
        digest: SHA-256 of the content; empty if it was kept.
        fate: what the handler said of its operation.
    """

    response: Response
    whole: bool
    size: int
    digest: bytes
    fate: Fate


@value
class Raised:
    """The handler raised, or returned without an answer, before any byte was sent."""

    fate: Fate


@value
class Broken:
    """The handler failed in the middle of its answer, after bytes were sent."""


@value
class Cancelled:
    """The handler was stopped: the process is shutting down and would not wait longer."""

    fate: Fate


Ended = Answered | Raised | Broken | Cancelled
"""How a handler ended."""


@value
class CompletedWithin:
    """The handler completed the record itself, in a transaction of its own; whether that was committed is not known.

    Attributes:
        response: what it recorded.
        stored: the same, sealed.
        ended: how it ended.
    """

    response: Response
    stored: bytes
    ended: Ended


Outcome = Ended | CompletedWithin


@value
class Execute(Effect[Outcome]):
    """Run the handler; answered at its last response message, before that is sent. Never raises."""

    claim: Claim
    key: Key
    scope: str
    request: Request
    policy: Policy
