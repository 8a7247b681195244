"""What a flow may ask for. A flow performs nothing itself; a driver performs each effect and sends
the answer back in.

There are two kinds. A `Transition` is for the store: one atomic operation, named by its condition,
whose answer says whether it took effect. The rest is for the door that brought the request.

Each effect is typed by its answer, so that `perform(ClaimIfAbsent(...))` is a `Found` to the type
checker, and a driver that forgets one fails on `assert_never`.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from retrysafe.model import Claim, Found, Request

T = TypeVar("T")


class Effect(Generic[T]):
    """Something that a flow asks its driver to do; `T` is the type of the answer."""

    __slots__ = ()


Flow = Generator[Effect[Any], Any, T]


def perform(effect: Effect[T]) -> Flow[T]:
    """Ask for one effect: `answer = yield from perform(effect)`, with the answer's type known."""
    answer: T = yield effect
    return answer


# --- for the store ------------------------------------------------------------------------------


class Transition(Effect[T]):
    """One atomic operation of a store on one record. `stores.contract` says what each promises."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class ClaimIfAbsent(Transition[Found]):
    """Insert a record in progress, attempt 1, if there is none; else the record as it stands.

    The answer's record carries `token` if and only if this claim holds, also when the same claim is
    repeated after a lost reply (hazard 53).

    Attributes:
        record_id: 32 bytes.
        token: 16 random bytes, chosen by the caller.
        fingerprint: of the request.
        lease_ms: how long the claim holds without renewal.
        forget_after_ms: how long after its lease an abandoned record is kept.
    """

    record_id: bytes
    token: bytes
    fingerprint: bytes
    lease_ms: int
    forget_after_ms: int


@dataclass(frozen=True, slots=True)
class TakeOverIfLapsed(Transition[bool]):
    """New claim on a record in progress whose token is `seen_token` and whose lease has lapsed."""

    record_id: bytes
    seen_token: bytes
    token: bytes
    lease_ms: int
    forget_after_ms: int


@dataclass(frozen=True, slots=True)
class ClaimIfRetryable(Transition[bool]):
    """New claim on a retryable record whose token is `seen_token`."""

    record_id: bytes
    seen_token: bytes
    token: bytes
    lease_ms: int
    forget_after_ms: int


@dataclass(frozen=True, slots=True)
class RenewIfHeld(Transition[bool]):
    """Extend the lease of a record in progress that this claim still holds."""

    claim: Claim
    lease_ms: int
    forget_after_ms: int


@dataclass(frozen=True, slots=True)
class CompleteIfHeld(Transition[bool]):
    """Keep the outcome of a claim that still holds its record, in progress or marked unknown meanwhile.

    Attributes:
        claim: the owner's.
        response: the sealed snapshot.
        lifetime_ms: from now, how long the record replays.
        forget_after_ms: from the end of the lifetime, how long a tombstone stays.
    """

    claim: Claim
    response: bytes
    lifetime_ms: int
    forget_after_ms: int


@dataclass(frozen=True, slots=True)
class ReleaseIfHeld(Transition[bool]):
    """Proven without effect: make the record retryable, fingerprint kept."""

    claim: Claim
    forget_after_ms: int


@dataclass(frozen=True, slots=True)
class DiscardIfHeld(Transition[bool]):
    """Nothing ran: delete the record."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class MarkUnknownIfHeld(Transition[bool]):
    """The owner itself cannot tell whether the effect happened."""

    claim: Claim
    forget_after_ms: int


@dataclass(frozen=True, slots=True)
class MarkUnknownIfLapsed(Transition[bool]):
    """The owner is gone: the record is in progress under `seen_token` and its lease has lapsed."""

    record_id: bytes
    seen_token: bytes
    forget_after_ms: int


@dataclass(frozen=True, slots=True)
class ForgetIfOver(Transition[bool]):
    """Delete a record under `seen_token` that is no longer in progress and whose time to be forgotten has come."""

    record_id: bytes
    seen_token: bytes


@dataclass(frozen=True, slots=True)
class Read(Transition[Found | None]):
    """The record as it stands, from where writes go; None if there is none. Changes nothing."""

    record_id: bytes


# --- for the store, of many records -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Purged:
    """What one batch of purging did: records expired, records forgotten, whether more are due."""

    expired: int
    forgotten: int
    more: bool


@dataclass(frozen=True, slots=True)
class Purge(Transition[Purged]):
    """Expire and forget what is due, at most `batch_max` records of each."""

    batch_max: int = 200
