"""Each transition as a pure plan, which yields what it wants done in SQL and does nothing itself.

An executor runs a plan: it performs each step and sends the answer back in, and the plan returns the
answer of its transition. A plan that only looks never asks for `Now.TO_WRITE`; so a batch of replays
needs no write transaction, and one is begun when the first plan of a batch asks for it.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, NamedTuple, TypeVar, cast

from retrysafe.model import Found, Record, State
from retrysafe.protocol.effects import Transition
from retrysafe.protocol.transitions import (
    ANSWER_DAYS_KEPT,
    DAY_MS,
    AddHistory,
    AnswerCount,
    ClaimIfAbsent,
    CountAnswers,
    Details,
    ListAbandoned,
    Listed,
    ListRecords,
    ListResponses,
    Purge,
    Purged,
    Read,
    ReadDetails,
    RecordCount,
    RecordsPage,
    ResponsesPage,
    Stats,
    StoredHead,
    TakeStats,
)
from retrysafe.stores import sql
from retrysafe.stores.contract import agree_on_secret

T = TypeVar("T")

Values = Mapping[str, bytes | int | str | None]
Row = Sequence[Any]


class Look(NamedTuple):
    """Rows that are wanted; answered by a list of them."""

    statement: str
    values: Values


class Change(NamedTuple):
    """A statement that writes; answered by the number of rows that it changed."""

    statement: str
    values: Values


class Now(Enum):
    """The store's clock; answered in milliseconds."""

    TO_READ = "read"
    TO_WRITE = "write"  # from here on in a transaction that alone may write, begun at that time


Plan = Generator[Look | Change | Now, Any, T]


@dataclass(frozen=True, slots=True)
class AgreeOnSecret(Transition[bytes]):
    """Answer with the secret of the store's key digests; settle which it is if it is not yet."""

    given: bytes | None


def plan_of(transition: Transition[Any], *, writing: bool, seen: Row | None = None) -> Plan[Any]:
    """The plan that does this transition.

    Args:
        transition: what is to be done.
        writing: a transaction that may write has begun already, for another plan.
        seen: the record of a claim, if it was looked up for this batch already; None if not, or if it is not there.
    """
    match transition:
        case ClaimIfAbsent():
            return _claim(transition, writing=writing, seen=seen)
        case Read():
            return _read(transition)
        case ReadDetails():
            return _read_details(transition)
        case AddHistory():
            return _add_history(transition)
        case AgreeOnSecret():
            return _agree(transition)
        case _ if type(transition) in sql.CHANGES:
            return _compare_and_set(transition)
        case _:
            return _plan_of_many(transition)


def _plan_of_many(transition: Transition[Any]) -> Plan[Any]:
    match transition:
        case Purge():
            return _purge(transition)
        case ListRecords():
            return _list_records(transition)
        case ListAbandoned():
            return _list_abandoned(transition)
        case ListResponses():
            return _list_responses(transition)
        case CountAnswers():
            return _count_answers(transition)
        case TakeStats():
            return _take_stats(transition)
        case _:
            raise AssertionError(f"no plan for {type(transition).__name__}")


def _claim(claim: ClaimIfAbsent, *, writing: bool, seen: Row | None) -> Plan[Found]:
    """A replay must not wait for the right to write: so look first. Where it is there already, most claims are new."""
    if not writing:
        rows = [seen] if seen is not None else (yield Look(sql.RECORD, {"record_id": claim.record_id}))
        if rows:
            now_ms = yield Now.TO_READ
            return Found(_record(rows[0]), now_ms)
    now_ms = yield Now.TO_WRITE
    record = claim.first_record(now_ms)  # known, so that it need not be read back
    inserted = yield Change(sql.CLAIM, _values(claim, now_ms))
    if not inserted:  # it is there after all, from before or from another process
        rows = yield Look(sql.RECORD, {"record_id": claim.record_id})
        record = _record(rows[0])
    return Found(record, now_ms)


def _read(read: Read) -> Plan[Found | None]:
    rows = yield Look(sql.RECORD, {"record_id": read.record_id})
    now_ms = yield Now.TO_READ
    return Found(_record(rows[0]), now_ms) if rows else None


def _read_details(read: ReadDetails) -> Plan[Details]:
    rows = yield Look(sql.DETAILS, {"record_id": read.record_id})
    now_ms = yield Now.TO_READ
    entries = yield Look(sql.HISTORY, {"record_id": read.record_id, "now_ms": now_ms})
    found, request, journal = None, None, None
    if rows:
        (*record, request, journal) = rows[0]
        found = Found(_record(record), now_ms)
    return Details(found, request, journal, tuple(entry for (entry,) in entries))


def _add_history(addition: AddHistory) -> Plan[bool]:
    now_ms = yield Now.TO_WRITE
    yield Change(sql.ADD_HISTORY, _values(addition, now_ms))
    return True


def _compare_and_set(transition: Transition[bool]) -> Plan[bool]:
    """All conditions stand in the one statement: it took effect if it changed its row."""
    now_ms = yield Now.TO_WRITE
    changed: int = yield Change(sql.CHANGES[type(transition)], _values(transition, now_ms))
    return changed == 1


def _purge(purge: Purge) -> Plan[Purged]:
    """Forget before expiring, so that what is over altogether is deleted and not first emptied."""
    now_ms = yield Now.TO_READ
    if not (yield from _is_due(now_ms)):
        return Purged(expired=0, forgotten=0, more=False)
    now_ms = yield Now.TO_WRITE
    batch = {"now_ms": now_ms, "batch_max": purge.batch_max}
    forgotten = yield Change(sql.PURGE_FORGET, batch)
    expired = yield Change(sql.PURGE_EXPIRE, batch)
    yield Change(sql.PURGE_ABANDON, batch)
    yield Change(sql.PURGE_HISTORY, batch)
    more = yield from _is_due(now_ms)
    return Purged(expired, forgotten, more=more)


def _is_due(now_ms: int) -> Plan[bool]:
    due = (yield Look(sql.DUE, {"now_ms": now_ms})) or (yield Look(sql.HISTORY_DUE, {"now_ms": now_ms}))
    return bool(due)


def _list_records(wish: ListRecords) -> Plan[RecordsPage]:
    now_ms = yield Now.TO_READ
    ends = yield Look(sql.PORTION_END, {"after": wish.after, "skipped": sql.PORTION - 1})
    rows = yield Look(sql.RECORDS, records_values(wish, ends))
    return records_page_of(rows, now_ms, wish.batch_max, ends)


def records_values(wish: ListRecords, ends: Sequence[Row]) -> Values:
    """The parameters of `sql.RECORDS`.

    Args:
        wish: what is listed.
        ends: the rows of `sql.PORTION_END`: up to where this page looks; none if it looks at all that is left.
    """
    last = ends[0][0] if ends else _LAST_OF_ALL
    return {"after": wish.after, "last": last, "batch_max": wish.batch_max, "route": wish.route} | {
        "states": ",".join(wish.states)
    }


_LAST_OF_ALL = b"\xff" * 32


def records_page_of(rows: Sequence[Row], now_ms: int, batch_max: int, ends: Sequence[Row]) -> RecordsPage:
    """The rows of `sql.RECORDS` as a page: not the last if it is full, or did not look at all that is left.

    Args:
        rows: the id, and the record.
        now_ms: the store's clock.
        batch_max: what was asked for.
        ends: as for `records_values`.
    """
    listed = tuple(Listed(record_id, _record(row)) for record_id, *row in rows)
    if len(listed) == batch_max:
        return RecordsPage(listed, now_ms, listed[-1].record_id)
    return RecordsPage(listed, now_ms, ends[0][0] if ends else None)


def _list_abandoned(wish: ListAbandoned) -> Plan[RecordsPage]:
    now_ms = yield Now.TO_READ
    rows = yield Look(sql.ABANDONED, {**abandoned_values(wish), "now_ms": now_ms})
    return abandoned_page_of(rows, now_ms, wish.batch_max)


def abandoned_values(wish: ListAbandoned) -> Values:
    """The parameters of `sql.ABANDONED`, but for the time: its pages go by the end of the lease, and then by the id."""
    return {
        "after_ms": int.from_bytes(wish.after[:_LEASE_BYTES], signed=True),
        "after": wish.after[_LEASE_BYTES:],
        "batch_max": wish.batch_max,
    }


def abandoned_page_of(rows: Sequence[Row], now_ms: int, batch_max: int) -> RecordsPage:
    """The rows of `sql.ABANDONED` as a page: a full one is not the last."""
    listed = tuple(Listed(record_id, _record(row)) for record_id, *row in rows)
    if len(listed) < batch_max:
        return RecordsPage(listed, now_ms, None)
    last = listed[-1]
    lease_until = last.record.lease_until_ms.to_bytes(_LEASE_BYTES, signed=True)
    return RecordsPage(listed, now_ms, lease_until + last.record_id)


_LEASE_BYTES = 8


def _list_responses(wish: ListResponses) -> Plan[ResponsesPage]:
    rows = yield Look(sql.RESPONSES, {"after": wish.after, "batch_max": wish.batch_max})
    return page_of(rows, wish.batch_max)


def page_of(rows: Sequence[Row], batch_max: int) -> ResponsesPage:
    """The rows of `sql.RESPONSES` as a page: a full one is not the last."""
    responses = tuple(StoredHead(*row) for row in rows)
    return ResponsesPage(responses, responses[-1].record_id if len(responses) == batch_max else None)


def _count_answers(wish: CountAnswers) -> Plan[bool]:
    day = (yield Now.TO_WRITE) // DAY_MS
    for count in wish.counts:
        values = {"day": day, "route": count.route, "recorded": count.recorded, "replayed": count.replayed}
        yield Change(sql.COUNT_ANSWERS, values)
    yield Change(sql.FORGET_ANSWERS, {"last_day": day - ANSWER_DAYS_KEPT})
    return True


def _take_stats(wish: TakeStats) -> Plan[Stats]:
    now_ms = yield Now.TO_READ
    records = yield Look(sql.RECORD_COUNTS, {})
    answers = yield Look(sql.ANSWER_COUNTS, {"last_day": now_ms // DAY_MS - wish.days})
    return stats_of(now_ms, records, answers)


def stats_of(now_ms: int, records: Sequence[Row], answers: Sequence[Row]) -> Stats:
    """The rows of `sql.RECORD_COUNTS` and `sql.ANSWER_COUNTS` as statistics; some drivers have a type of sums."""
    counts = [RecordCount(route, State(state), *map(int, numbers)) for route, state, *numbers in records]
    sums = [AnswerCount(route, *map(int, numbers)) for route, *numbers in answers]
    return Stats(now_ms, tuple(sorted(counts, key=_by_route)), tuple(sorted(sums, key=lambda count: count.route)))


def summed(counts: Sequence[AnswerCount]) -> list[AnswerCount]:
    """One count for each route, sorted by it: so those who count at once never wait for each other in a circle."""
    sums: dict[str, tuple[int, int]] = {}
    for count in counts:
        recorded, replayed = sums.get(count.route, (0, 0))
        sums[count.route] = recorded + count.recorded, replayed + count.replayed
    return [AnswerCount(route, *numbers) for route, numbers in sorted(sums.items())]


def _by_route(count: RecordCount) -> tuple[str, State]:
    return count.route, count.state


def _agree(wish: AgreeOnSecret) -> Plan[bytes]:
    """Agreed once, and only looked at ever after."""
    ((held, check),) = yield Look(sql.SECRET, {})
    if check is None:
        yield Now.TO_WRITE
        ((held, check),) = yield Look(sql.SECRET, {})
    secret, to_hold, new_check = agree_on_secret(wish.given, held, check)
    if check is None:
        yield Change(sql.KEEP_SECRET, {"secret": to_hold, "secret_check": new_check})
    return secret


def _record(row: Row) -> Record:
    """A row of `sql.RECORD` as a record."""
    state, *rest = row
    return Record(State(state), *rest)


_KINDS: tuple[type[Transition[Any]], ...] = (ClaimIfAbsent, AddHistory, *sql.CHANGES)
_ATTRIBUTES = {kind: tuple(field.name for field in fields(cast(Any, kind))) for kind in _KINDS}


def _values(transition: Transition[Any], now_ms: int) -> Values:
    """The attributes of a transition under their names, its claim's among them, and the time."""
    values = {name: getattr(transition, name) for name in _ATTRIBUTES[type(transition)]}
    if claim := values.pop("claim", None):
        values["record_id"], values["token"] = claim.record_id, claim.token
    values["now_ms"] = now_ms
    return values
