"""Each transition as a pure plan, which yields the commands that it wants done and does nothing itself.

An executor runs a plan: it performs each step and sends the answer back in, or throws the `StoreError`
that the step came to; the plan returns the answer of its transition. Every transition is one `Call`;
only a claim that is to be on replicas, a claim on a full server, a purge and the secret take more.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from retrysafe.errors import StoreError, StoreUnavailable
from retrysafe.model import Found, Record, State
from retrysafe.protocol.effects import (
    ClaimIfAbsent,
    ClaimIfRetryable,
    Purge,
    Purged,
    Read,
    TakeOverIfLapsed,
    Transition,
)
from retrysafe.stores.contract import agree_on_secret
from retrysafe.stores.plan import AgreeOnSecret
from retrysafe.stores.redis_errors import StoreFull
from retrysafe.stores.redis_scripts import IDENTITY_BYTES, LAYOUT, LETTERS, Script, Scripts, arguments

T = TypeVar("T")

RECORDS_A_PAGE = 500


class Call(NamedTuple):
    """A script on one record; answered by what it returns."""

    script: Script
    keys: Sequence[bytes]
    arguments: Sequence[bytes | int]


class Wait(NamedTuple):
    """Until so many replicas have what the connection of the last call wrote; answered by how many have."""

    replicas: int
    wait_ms: int


class Page(NamedTuple):
    """Some of the keys that match; answered by a `Keys`. The first page has no cursor."""

    pattern: bytes
    cursor: Any


class Keys(NamedTuple):
    """A page of keys, and the cursor of the next page; None after the last."""

    keys: Sequence[bytes]
    cursor: Any


Step = Call | Wait | Page
Plan = Generator[Step, Any, T]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the records are, and what is asked about them.

    Attributes:
        prefix: of every key; stores with different ones know nothing of each other.
        scripts: of the transitions.
        replicas: how many must have a claim before it counts.
        wait_ms: how long they may take.
    """

    prefix: str
    scripts: Scripts
    replicas: int = 0
    wait_ms: int = 1_000

    def keys(self, record_id: bytes) -> tuple[bytes, bytes]:
        """The key of a record and that of its response. They share a hash tag: the id's first eight digits,
        by which the log names a record too.
        """
        digits = record_id.hex()
        key = f"{self.prefix}:{{{digits[:8]}}}{digits[8:]}".encode()
        return key, key + _RESPONSE

    def record_id(self, key: bytes) -> bytes | None:
        """The id of the record that has this key; None if it is the key of something else."""
        digits = key.removeprefix(f"{self.prefix}:{{".encode()).replace(b"}", b"", 1)
        try:
            record_id = bytes.fromhex(digits.decode())
        except ValueError:
            return None
        return record_id if self.keys(record_id)[0] == key else None

    @property
    def secret_key(self) -> bytes:
        """The key of the store's secret."""
        return f"{self.prefix}:secret".encode()

    @property
    def pattern(self) -> bytes:
        """What matches the key of every record, as `SCAN` understands it."""
        literal = "".join(f"\\{letter}" if letter in "*?[]\\^" else letter for letter in self.prefix)
        return f"{literal}:{{*".encode()


_RESPONSE = b":response"
_RECORD = struct.Struct(">" + "".join(LAYOUT.values()))
_STATES = {letter.encode(): state for state, letter in LETTERS.items()}


def plan_of(transition: Transition[Any], layout: Layout) -> Plan[Any]:
    """The plan that does this transition."""
    match transition:
        case ClaimIfAbsent():
            return _claim(transition, layout)
        case Read(record_id):
            return _read(record_id, layout)
        case TakeOverIfLapsed() | ClaimIfRetryable():
            return _claim_again(transition, layout)
        case Purge():
            return _purge(transition, layout)
        case AgreeOnSecret():
            return _agree(transition, layout)
        case _:
            return _compare_and_set(transition, layout)


def _claim(claim: ClaimIfAbsent, layout: Layout) -> Plan[Found]:
    """A server whose memory is full takes no claim, and replays all the same."""
    record_id = claim.record_id
    values = (record_id[:IDENTITY_BYTES], claim.token, claim.fingerprint, claim.lease_ms, claim.forget_after_ms)
    try:
        answer = yield Call(layout.scripts.claim, layout.keys(record_id), values)
    except StoreFull as full:
        standing = yield from _read(record_id, layout)
        if standing is None:
            raise StoreFull(str(full)) from full
        return standing
    found = _found(answer, record_id)
    if layout.replicas and found.record.token == claim.token:
        yield from _replicated(layout)
    return found


def _read(record_id: bytes, layout: Layout) -> Plan[Found | None]:
    call = Call(layout.scripts.read, layout.keys(record_id), (record_id[:IDENTITY_BYTES],))
    answer = yield call
    return _found(answer, record_id) if len(_own(answer, record_id)) > 2 else None


def _claim_again(claim: TakeOverIfLapsed | ClaimIfRetryable, layout: Layout) -> Plan[bool]:
    claimed = yield from _compare_and_set(claim, layout)
    if layout.replicas and claimed:
        yield from _replicated(layout)
    return claimed


def _compare_and_set(transition: Transition[bool], layout: Layout) -> Plan[bool]:
    """All conditions stand in the one script: it says whether it took effect."""
    record_id, values = _values(transition)
    answer = yield Call(layout.scripts.changes[type(transition)], layout.keys(record_id), values)
    if isinstance(answer, bytes) and answer[:-1] == values[0]:
        return answer[-1:] == b"1"
    raise _astray(answer)


def _replicated(layout: Layout) -> Plan[None]:
    """Nothing may run under a claim that is not on enough replicas: the caller takes it back."""
    replicas = yield Wait(layout.replicas, layout.wait_ms)
    if replicas < layout.replicas:
        raise StoreUnavailable(
            f"claimed, but {replicas} of the {layout.replicas} replicas that are to have the claim had it after "
            f"{layout.wait_ms} ms; look at the replicas, or lower wait="
        )


def _purge(purge: Purge, layout: Layout) -> Plan[Purged]:
    """Do what is due. A server does that by itself, so there is hardly ever anything left to do."""
    cursor, counts, more = None, {b"f": 0, b"e": 0, b"a": 0, b"": 0}, False
    while True:
        page: Keys = yield Page(layout.pattern, cursor)
        for key in page.keys:
            record_id = layout.record_id(key)
            if record_id is None:
                continue
            acting = max(counts[b"f"], counts[b"e"]) < purge.batch_max
            identity = record_id[:IDENTITY_BYTES]
            answer = yield Call(layout.scripts.purge, layout.keys(record_id), (identity, b"1" if acting else b"0"))
            if not isinstance(answer, bytes) or answer[:IDENTITY_BYTES] != identity:
                raise _astray(answer)
            due = answer[IDENTITY_BYTES:]
            more |= due == b"a"  # abandoned now, forgotten next time
            if due and not acting:
                return Purged(counts[b"e"], counts[b"f"], more=True)
            counts[due] += 1
        cursor = page.cursor
        if cursor is None:
            return Purged(counts[b"e"], counts[b"f"], more=more)


def _agree(wish: AgreeOnSecret, layout: Layout) -> Plan[bytes]:
    """Agreed once, and only looked at ever after. Kept as the digest, and then the secret if the store has it."""
    kept = yield Call(layout.scripts.keep, (layout.secret_key,), (b"",))
    check, held = _parted(kept)
    secret, to_hold, new_check = agree_on_secret(wish.given, held, check)
    if check is not None:
        return secret
    kept = yield Call(layout.scripts.keep, (layout.secret_key,), (new_check + (to_hold or b""),))
    check, held = _parted(kept)  # which may be what another process gave in the same moment
    return agree_on_secret(wish.given, held, check)[0]


_CHECK_BYTES = 32


def _parted(kept: bytes | None) -> tuple[bytes | None, bytes | None]:
    if kept is None:
        return None, None
    return kept[:_CHECK_BYTES], kept[_CHECK_BYTES:] or None


def _values(transition: Transition[Any]) -> tuple[bytes, tuple[Any, ...]]:
    """The id of the record, and what its script is given."""
    claim: Any = getattr(transition, "claim", transition)
    record_id: bytes = claim.record_id
    names = _ARGUMENTS[type(transition)]
    given = [claim.token if name == "token" else getattr(transition, name) for name in names]
    return record_id, (record_id[:IDENTITY_BYTES], *given)


_ARGUMENTS = {kind: arguments(kind) for kind in Scripts().changes}


def _own(answer: Any, record_id: bytes) -> list[Any]:
    """The answer, if it is about this record: one that is not must never reach whoever asked."""
    if not isinstance(answer, list) or answer[:1] != [record_id[:IDENTITY_BYTES]]:
        raise _astray(answer)
    return answer


def _found(answer: Any, record_id: bytes) -> Found:
    _, now_ms, value, response = _own(answer, record_id)
    _, letter, identity, token, attempt, created, claimed, _, lease, settled, expires, forget = _RECORD.unpack_from(
        value
    )
    if identity != record_id[:IDENTITY_BYTES]:
        raise _astray(value)
    record = Record(
        state=_STATES[letter],
        token=token,
        attempt=attempt,
        fingerprint=value[_RECORD.size :],
        created_at_ms=created,
        claimed_at_ms=claimed,
        lease_until_ms=lease,
        settled_at_ms=settled or None,
        expires_at_ms=expires or None,
        forget_at_ms=forget,
        response=response,
    )
    return Found(record, now_ms)


def _astray(answer: Any) -> StoreError:
    return StoreError(
        f"the answer, a {type(answer).__name__}, is not about the record that was asked about; "
        "something between here and the server mixes up answers"
    )


assert len(_STATES) == len(State), "two states have the same initial"
