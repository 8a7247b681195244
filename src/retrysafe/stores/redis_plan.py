"""Each transition as a pure plan, which yields the commands that it wants done and does nothing itself.

An executor runs a plan: it performs each step and sends the answer back in, or throws the `StoreError`
that the step came to; the plan returns the answer of its transition. Every transition is one `Call`;
only a claim that is to be on replicas, a claim on a full server, the secret, and what looks at many records
take more.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar, cast

from retrysafe.errors import StoreError, StoreUnavailable
from retrysafe.model import Found, Record, State
from retrysafe.protocol.effects import Transition
from retrysafe.protocol.states import Event
from retrysafe.protocol.transitions import (
    ANSWER_DAYS_KEPT,
    DAY_MS,
    STORED_HEAD_BYTES,
    AddHistory,
    ClaimIfAbsent,
    ClaimIfRetryable,
    CountAnswers,
    Details,
    ForgetIfSeen,
    ListAbandoned,
    Listed,
    ListRecords,
    ListResponses,
    Purge,
    Purged,
    Read,
    ReadDetails,
    RecordsPage,
    ResponsesPage,
    Stats,
    StoredHead,
    TakeOverIfLapsed,
    TakeStats,
)
from retrysafe.stores.census import Census
from retrysafe.stores.clock import Told
from retrysafe.stores.contract import agree_on_secret
from retrysafe.stores.memory import allowed
from retrysafe.stores.plan import AgreeOnSecret
from retrysafe.stores.redis_errors import StoreFull
from retrysafe.stores.redis_scripts import IDENTITY_BYTES, LAYOUT, LETTERS, Script, Scripts, arguments

T = TypeVar("T")

RECORDS_A_PAGE = 500
PAGES_MAX = 10  # of the server's, that a page of a list is made of

Cursor = tuple[int, int]
"""Which of the primaries, and where on it."""


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
    cursor: Cursor | None


class Keys(NamedTuple):
    """A page of keys, and the cursor of the next page; None after the last."""

    keys: Sequence[bytes]
    cursor: Cursor | None


class Reads(NamedTuple):
    """Commands that read, each one key; all of them in one round trip; answered by a list of what they answer."""

    commands: Sequence[tuple[str | bytes | int, ...]]


Step = Call | Wait | Page | Reads
Plan = Generator[Step, Any, T]


class ToldBySlot:
    """The latest time that this process was told about the records of each slot, all of which one server has.

    Records of other slots may be on another server of a cluster, whose clock says nothing about these.

    Args:
        slots: how many there are; one where all records are on one server.
    """

    def __init__(self, slots: int = 1) -> None:
        self._slots = slots
        self._told: dict[int, Told] = {}

    def of(self, record_id: bytes) -> Told:
        """What was told about the slot of a record."""
        slot = 0 if self._slots == 1 else _slot(record_id) % self._slots
        return self._told.get(slot) or self._told.setdefault(slot, Told())


SLOTS = 16_384  # of a cluster


def _slot(record_id: bytes) -> int:
    """That of the keys of a record, as a cluster counts: by their hash tag."""
    return binascii.crc_hqx(record_id[:_TAG_BYTES].hex().encode(), 0) % SLOTS


_TAG_BYTES = 4


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the records are, and what is asked about them.

    Attributes:
        prefix: of every key; stores with different ones know nothing of each other.
        scripts: of the transitions.
        replicas: how many must have a claim before it counts.
        wait_ms: how long they may take.
        told: what time it was.
    """

    prefix: str
    scripts: Scripts
    replicas: int = 0
    wait_ms: int = 1_000
    told: ToldBySlot = field(default_factory=ToldBySlot)

    def about(self, record_id: bytes) -> tuple[bytes, int]:
        """What every script about a record is given first."""
        return record_id[:IDENTITY_BYTES], self.told.of(record_id).now_ms

    def keys(self, record_id: bytes) -> tuple[bytes, bytes]:
        """The key of a record and that of its response. They share a hash tag: the id's first eight digits,
        by which the log names a record too.
        """
        digits = record_id.hex()
        key = f"{self.prefix}:{{{digits[: 2 * _TAG_BYTES]}}}{digits[2 * _TAG_BYTES :]}".encode()
        return key, key + _RESPONSE

    def every_key(self, record_id: bytes) -> tuple[bytes, bytes, bytes, bytes, bytes]:
        """The keys of a record, its response, its request, its journal and its history."""
        key, response = self.keys(record_id)
        return key, response, key + _REQUEST, key + _JOURNAL, key + _HISTORY

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
    def answers_key(self) -> bytes:
        """What the keys of the days begin with, on which answers are counted; they share a hash tag."""
        return f"{self.prefix}:{{answers}}".encode()

    def day_key(self, day: int) -> bytes:
        """The key of the counts of one day, by its number since 1970."""
        return self.answers_key + str(day).encode()

    @property
    def pattern(self) -> bytes:
        """What matches the key of every record, as `SCAN` understands it."""
        literal = "".join(f"\\{letter}" if letter in "*?[]\\^" else letter for letter in self.prefix)
        return f"{literal}:{{*".encode()

    @property
    def responses_pattern(self) -> bytes:
        """What matches the key of every response."""
        return self.pattern + _RESPONSE

    @property
    def requests_pattern(self) -> bytes:
        """What matches the key of every request."""
        return self.pattern + _REQUEST


_RESPONSE, _REQUEST, _JOURNAL, _HISTORY = b":response", b":request", b":journal", b":history"
_ANSWERS = b"answers "  # in the place of a record's identity: what is asked is about none
_RECORDED, _REPLAYED = b"recorded ", b"replayed "  # and then the route
_KINDS = {_RECORDED: "recorded", _REPLAYED: "replayed"}
_CURSOR = struct.Struct(">HQ")
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
        case ReadDetails(record_id):
            return _read_details(record_id, layout)
        case AddHistory():
            return _add_history(transition, layout)
        case AgreeOnSecret():
            return _agree(transition, layout)
        case _ if type(transition) in layout.scripts.changes:
            return _compare_and_set(transition, layout)
        case _:
            return _plan_of_many(transition, layout)


def _plan_of_many(transition: Transition[Any], layout: Layout) -> Plan[Any]:
    match transition:
        case Purge():
            return _purge(transition, layout)
        case ListRecords():
            return _list_records(transition, layout)
        case ListAbandoned():
            return _list_abandoned(transition, layout)
        case ListResponses():
            return _list_responses(transition, layout)
        case CountAnswers():
            return _count_answers(transition, layout)
        case TakeStats():
            return _take_stats(transition, layout)
        case _:
            raise AssertionError(f"no plan for {type(transition).__name__}")


def _claim(claim: ClaimIfAbsent, layout: Layout) -> Plan[Found]:
    """A server whose memory is full takes no claim, and replays all the same."""
    record_id, values = _values(claim, layout)
    keys = layout.keys(record_id) if claim.request is None else layout.every_key(record_id)[:3]
    try:
        answer = yield Call(layout.scripts.claim, keys, values)
    except StoreFull as full:
        standing = yield from _read(record_id, layout)
        if standing is None:
            raise StoreFull(str(full)) from full
        return standing
    found = _found(answer, record_id, layout)
    if layout.replicas and found.record.token == claim.token:
        yield from _replicated(layout)
    return found


def _read(record_id: bytes, layout: Layout) -> Plan[Found | None]:
    answer = yield Call(layout.scripts.read, layout.keys(record_id), layout.about(record_id))
    return _found(answer, record_id, layout) if len(_own(answer, record_id)) > 2 else None


def _read_details(record_id: bytes, layout: Layout) -> Plan[Details]:
    answer = yield Call(layout.scripts.details, layout.every_key(record_id), layout.about(record_id))
    *found, request, journal, history = _own(answer, record_id)
    entries = tuple(history)
    return Details(_found(found, record_id, layout) if found[2] else None, request, journal, entries)


def _add_history(addition: AddHistory, layout: Layout) -> Plan[bool]:
    record_id = addition.record_id
    *_, history = layout.every_key(record_id)
    given = (*layout.about(record_id), addition.entry, addition.keep_ms)
    answer = yield Call(layout.scripts.add_history, (layout.keys(record_id)[0], history), given)
    return _done(answer, record_id) == b"1"


def _claim_again(claim: TakeOverIfLapsed | ClaimIfRetryable, layout: Layout) -> Plan[bool]:
    claimed = yield from _compare_and_set(claim, layout)
    if layout.replicas and claimed:
        yield from _replicated(layout)
    return claimed


def _compare_and_set(transition: Transition[bool], layout: Layout) -> Plan[bool]:
    """All conditions stand in the one script: it says whether it took effect."""
    record_id, values = _values(transition, layout)
    answer = yield Call(layout.scripts.changes[type(transition)], layout.every_key(record_id)[:4], values)
    return _done(answer, record_id) == b"1"


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
    cursor, counts, more = None, {b"f": 0, b"e": 0, b"a": 0, b"h": 0, b"": 0}, False
    while True:
        page: Keys = yield Page(layout.pattern, cursor)
        for key in page.keys:
            acting = max(counts[b"f"], counts[b"e"], counts[b"h"]) < purge.batch_max
            due = yield from _purge_one(key, layout, acting=acting)
            more |= due == b"a"  # abandoned now, forgotten next time
            if due and not acting:
                return Purged(counts[b"e"], counts[b"f"], more=True)
            counts[due] += 1
        cursor = page.cursor
        if cursor is None:
            return Purged(counts[b"e"], counts[b"f"], more=more)


def _purge_one(key: bytes, layout: Layout, *, acting: bool) -> Plan[bytes]:
    """Do what is due to a record or a history; the letter of that, and nothing if nothing is, or it is another key."""
    of_history = key.endswith(_HISTORY)
    record_id = layout.record_id(key.removesuffix(_HISTORY))
    if record_id is None:
        return b""
    given = (*layout.about(record_id), b"1" if acting else b"0")
    record, *_, history = keys = layout.every_key(record_id)
    if of_history:
        answer = yield Call(layout.scripts.purge_history, (record, history), given)
    else:
        answer = yield Call(layout.scripts.purge, keys[:4], given)
    return _done(answer, record_id)


# --- many records ---------------------------------------------------------------------------------


def _list_responses(wish: ListResponses, layout: Layout) -> Plan[ResponsesPage]:
    """Pages of the server's until there are enough. A response is on two of them only while the server changes the
    size of its tables.
    """
    cursor = _CURSOR.unpack(wish.after) if wish.after else None
    responses: list[StoredHead] = []
    while len(responses) < wish.batch_max:
        page: Keys = yield Page(layout.responses_pattern, cursor)
        named = {key: layout.record_id(key.removesuffix(_RESPONSE)) for key in page.keys}
        found = [(record_id, key) for key, record_id in named.items() if record_id is not None]
        heads = yield Reads([("GETRANGE", key, 0, STORED_HEAD_BYTES - 1) for _, key in found])
        responses += [StoredHead(record_id, head) for (record_id, _), head in zip(found, heads, strict=True)]
        cursor = page.cursor
        if cursor is None:
            return ResponsesPage(tuple(responses), None)
    return ResponsesPage(tuple(responses), _CURSOR.pack(*cursor) if cursor else None)


def _list_records(wish: ListRecords, layout: Layout) -> Plan[RecordsPage]:
    """As `_list_responses`; of those that are looked for there may be few, so it goes on for so many pages at most."""
    return _list(
        wish,
        layout,
        layout.pattern,
        b"",
        lambda record, _: record.state in wish.states and wish.route in (None, record.route),
    )


def _list_abandoned(wish: ListAbandoned, layout: Layout) -> Plan[RecordsPage]:
    """Of the records that have a request."""
    return _list(
        wish,
        layout,
        layout.requests_pattern,
        _REQUEST,
        lambda record, now_ms: allowed(record, Event.TAKE_OVER, record.token, now_ms),
    )


def _list(
    wish: ListRecords | ListAbandoned,
    layout: Layout,
    pattern: bytes,
    suffix: bytes,
    wanted: Callable[[Record, int], bool],
) -> Plan[RecordsPage]:
    """Records that have a key with this suffix, as far as they are wanted at this time."""
    _, now_ms = yield from _about_answers(Call(layout.scripts.now, (layout.answers_key,), (_ANSWERS,)))
    cursor = _CURSOR.unpack(wish.after) if wish.after else None
    listed: list[Listed] = []
    for _ in range(PAGES_MAX):
        page: Keys = yield Page(pattern, cursor)
        named = [layout.record_id(key.removesuffix(suffix)) for key in page.keys if key.endswith(suffix)]
        record_ids = [record_id for record_id in named if record_id is not None]
        values = yield Reads([("GET", layout.keys(record_id)[0]) for record_id in record_ids])
        there = zip(record_ids, values, strict=True)
        records = [(record_id, _record(value, record_id, None)) for record_id, value in there if value is not None]
        listed += [Listed(record_id, record) for record_id, record in records if wanted(record, now_ms)]
        cursor = page.cursor
        if cursor is None or len(listed) >= wish.batch_max:
            break
    return RecordsPage(tuple(listed), now_ms, _CURSOR.pack(*cursor) if cursor else None)


def _count_answers(wish: CountAnswers, layout: Layout) -> Plan[bool]:
    """The day is asked for first, because its key has to be named beforehand; all counts are added in one step."""
    _, now_ms = yield from _about_answers(Call(layout.scripts.now, (layout.answers_key,), (_ANSWERS,)))
    day = now_ms // DAY_MS
    values: list[bytes | int] = [_ANSWERS, (day + ANSWER_DAYS_KEPT) * DAY_MS - now_ms]
    for count in wish.counts:
        values += [_RECORDED + count.route.encode(), count.recorded, _REPLAYED + count.route.encode(), count.replayed]
    yield from _about_answers(Call(layout.scripts.count, (layout.day_key(day),), values))
    return True


def _take_stats(wish: TakeStats, layout: Layout) -> Plan[Stats]:
    _, now_ms = yield from _about_answers(Call(layout.scripts.now, (layout.answers_key,), (_ANSWERS,)))
    census = Census()
    yield from _count_records(census, layout)
    today = now_ms // DAY_MS
    days = [layout.day_key(today - before) for before in range(min(wish.days, ANSWER_DAYS_KEPT))]
    _, counts = yield from _about_answers(Call(layout.scripts.counts, days, (_ANSWERS,)))
    for day in counts:
        for name, number in zip(day[::2], day[1::2], strict=True):
            kind, route = name[: len(_RECORDED)], name[len(_RECORDED) :].decode()
            census.add_answers(route, **{_KINDS[kind]: int(number)})
    return census.stats(now_ms)


def _count_records(census: Census, layout: Layout) -> Plan[None]:
    """Every record, once: a server may show one twice while it changes the size of its tables."""
    seen: set[bytes] = set()
    cursor = None
    while True:
        page: Keys = yield Page(layout.pattern, cursor)
        named = {record_id: key for key in page.keys if (record_id := layout.record_id(key)) is not None}
        new = {record_id: key for record_id, key in named.items() if record_id not in seen}
        seen.update(new)
        answers = yield Reads([one for key in new.values() for one in (("GET", key), ("STRLEN", key + _RESPONSE))])
        for record_id, value, size_bytes in zip(new, answers[::2], answers[1::2], strict=True):
            if value is not None:
                record = _record(value, record_id, None)
                census.add_record(record.route, record.state, record.claimed_at_ms, size_bytes)
        cursor = page.cursor
        if cursor is None:
            return


def _about_answers(call: Call) -> Plan[Any]:
    answer = yield call
    if answer[: len(_ANSWERS)] != _ANSWERS and answer[:1] != [_ANSWERS]:
        raise _astray(answer)
    return answer


def held(layout: Layout) -> Plan[bool]:
    """Whether there is a secret: an application has used the store already."""
    kept = yield Call(layout.scripts.keep, (layout.secret_key,), (b"",))
    return kept is not None


# --- what belongs to the store as a whole ---------------------------------------------------------


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


# --- records as the scripts give them -------------------------------------------------------------


def _values(transition: Transition[Any], layout: Layout) -> tuple[bytes, tuple[Any, ...]]:
    """The id of the record, and what its script is given."""
    record_id, *given = _GETTERS[type(transition)](transition)
    if isinstance(transition, ForgetIfSeen):  # a state is its letter
        given = [LETTERS[value] if isinstance(value, State) else value for value in given]
    elif None in given:  # and nothing is nothing
        given = [b"" if value is None else value for value in given]
    return record_id, (*layout.about(record_id), *given)


_KINDS_OF_ONE: tuple[type[Transition[Any]], ...] = (ClaimIfAbsent, *Scripts().changes)


def _getter(kind: type[Transition[Any]]) -> Callable[[Transition[Any]], tuple[Any, ...]]:
    """What reads the id of the record and what its script is given, in one go."""
    own = {part.name for part in fields(cast(Any, kind))}
    return attrgetter(*(name if name in own else f"claim.{name}" for name in ("record_id", *arguments(kind))))


_GETTERS = {kind: _getter(kind) for kind in _KINDS_OF_ONE}


def _own(answer: Any, record_id: bytes) -> list[Any]:
    """The answer, if it is about this record: one that is not must never reach whoever asked."""
    if not isinstance(answer, list) or answer[:1] != [record_id[:IDENTITY_BYTES]]:
        raise _astray(answer)
    return answer


def _done(answer: Any, record_id: bytes) -> bytes:
    """What a script says that it did, if it says it about this record."""
    if not isinstance(answer, bytes) or answer[:IDENTITY_BYTES] != record_id[:IDENTITY_BYTES]:
        raise _astray(answer)
    return answer[IDENTITY_BYTES:]


def _found(answer: Any, record_id: bytes, layout: Layout) -> Found:
    _, now_ms, value, response = _own(answer, record_id)
    layout.told.of(record_id).hear((now_ms,))
    return Found(_record(value, record_id, response), now_ms)


def _record(value: bytes, record_id: bytes, response: bytes | None) -> Record:
    parts = _RECORD.unpack_from(value)
    _, letter, identity, token, attempt, created, claimed, _, lease, settled, expires, forget, fingerprint = parts
    if identity != record_id[:IDENTITY_BYTES]:
        raise _astray(value)
    route_at = _RECORD.size + fingerprint
    return Record(
        state=_STATES[letter],
        token=token,
        attempt=attempt,
        fingerprint=value[_RECORD.size : route_at],
        created_at_ms=created,
        claimed_at_ms=claimed,
        lease_until_ms=lease,
        settled_at_ms=settled or None,
        expires_at_ms=expires or None,
        forget_at_ms=forget,
        response=response,
        route=value[route_at:].decode(),
    )


def _astray(answer: Any) -> StoreError:
    return StoreError(
        f"the answer, a {type(answer).__name__}, is not about the record that was asked about; "
        "something between here and the server mixes up answers"
    )


assert len(_STATES) == len(State), "two states have the same initial"
