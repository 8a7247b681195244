"""The transitions in the SQL that MySQL and MariaDB share: a batch is one text, and one round trip.

The statements are those of `stores.sql`, which are built from the table of states; here they are put
into the words of these servers, for many records at once. A text has several statements
(`CLIENT.MULTI_STATEMENTS`), because no single one that both servers know inserts what is absent and
answers with what is there: MySQL has no `RETURNING`.

**Claim.** Under READ COMMITTED the insert looks for the records that are there without locking any, so
a claim on a record that somebody holds in a transaction does not wait. Only of claims that race for an
absent record does one wait for the other; it then changes nothing. The insert commits by itself, and the
records are read after it: each as it then stands, which is what a claim answers. (`INSERT IGNORE` would
turn every error into a duplicate, and `ON DUPLICATE KEY UPDATE` alone locks what it finds.)

**Settle.** One record: one conditional statement, which says how many rows matched (`CLIENT.FOUND_ROWS`).
Many: one transaction, which locks the rows that meet the condition, in the order of their ids, then
writes to just these, and says which they were. If the condition itself is large, as that on a stored response
may be: one transaction of one such statement each.

**Statistics** are counted in portions of records, each a statement that is soon over: so neither a reply takes
long, nor does the server keep for long what others delete meanwhile.

**Time** is the server's, read once for a text. A record is never dated before what it already says: the
server's clock may step back, and so may the clock of the next server. Nor does time go back for one process: it says
what it was told.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar, assert_never, cast

from retrysafe.model import Found, Record, State
from retrysafe.protocol.effects import Transition
from retrysafe.protocol.states import Event, target
from retrysafe.protocol.transitions import (
    ANSWER_DAYS_KEPT,
    DAY_MS,
    AddHistory,
    AnswerCount,
    ClaimIfAbsent,
    CountAnswers,
    Details,
    ListAbandoned,
    ListRecords,
    ListResponses,
    Purge,
    Purged,
    Read,
    ReadDetails,
    TakeStats,
)
from retrysafe.stores import sql
from retrysafe.stores.lanes import record_of
from retrysafe.stores.plan import (
    abandoned_page_of,
    abandoned_values,
    page_of,
    records_page_of,
    records_values,
    stats_of,
    summed,
)

# ruff: noqa: S608 - texts are made of constants of this package and of `literal`

T = TypeVar("T")

Rows = Sequence[Sequence[Any]]
Result = Rows | int
"""What a statement came to: the rows that it found, or the number of rows that its condition matched."""

Plan = Generator[str, Sequence[Result], T]
"""Yields texts; is sent what each statement of it came to."""

CLOCK = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000"
"""The server's clock in milliseconds since 1970, whatever the time zone of the session."""


class Vanished(Exception):
    """A record that was there when it was claimed was deleted before it was read."""


def literal(value: bytes | int | str | None) -> str:
    """A value as it stands in SQL, whatever the session's modes: nothing in it can be taken for anything else.

    A text is its bytes in UTF-8, because a collation would find "abc" where "ABC" was asked for.
    """
    match value:
        case str():
            return literal(value.encode())
        case bytes():
            return f"x'{value.hex()}'"
        case int():
            return str(int(value))
        case None:
            return "NULL"
        case _:
            assert_never(value)


# --- statements in the words of these servers ---------------------------------------------------

_NOW = "@now_ms"
_NOW_OF_RECORD = f"GREATEST({_NOW}, claimed_at_ms, COALESCE(settled_at_ms, 0))"
_PARAMETER = re.compile(r":(\w+)")

# A value of more than 65 535 bytes in a UNION is cut off without a word (seen in MariaDB 10.11): those are
# written one by one, in the same text.
_ROW_CHARACTERS_MAX = 40_000


def _timed(text: str, now: str) -> str:
    return re.sub(r":now_ms\b", now, text)


def _placed(text: str) -> str:
    """A text of `sql` with our tables; the parameters are fields of `str.format`."""
    return _PARAMETER.sub(r"{\1}", re.sub(r"\bFROM (\w+)", r"FROM retrysafe_\1", text))


def _of_one(text: str) -> str:
    """The parameters are fields of `str.format`."""
    return _PARAMETER.sub(r"{\1}", _timed(text, _NOW_OF_RECORD))


def _of_given(text: str, now: str = _NOW_OF_RECORD) -> str:
    """The parameters are columns of the table `given`."""
    return _PARAMETER.sub(r"given.its_\1", _timed(text, now))


def _given(names: Iterable[str], values: Sequence[Mapping[str, str]]) -> str:
    """A table of what is given, in the order in which it is given; its columns are the names after `its_`."""
    first, *rest = values
    rows = ["SELECT " + ", ".join(f"{first[name]} AS its_{name}" for name in names)]
    rows += ["SELECT " + ", ".join(row[name] for name in names) for row in rest]
    return " UNION ALL ".join(rows)


class _Change:
    """One of the conditional statements, for one record or for many.

    Attributes:
        of_one: the statement for one record.
        locks: finds and locks, of many, those that meet the condition.
        key: the parameters of the condition.
        writes: does it to many.
    """

    def __init__(self, event: Event, writes: str) -> None:
        after, condition = target(event), f"record_id = :record_id AND {sql.condition(event)}"
        given, where = "({given}) AS given STRAIGHT_JOIN retrysafe_records", f"WHERE {_of_given(condition)}"
        self.key = [name for name in _PARAMETER.findall(condition) if name != "now_ms"]
        self.locks = f"SELECT retrysafe_records.record_id FROM {given} {where} FOR UPDATE"
        if after is None:
            self.of_one = f"DELETE FROM retrysafe_records WHERE {_of_one(condition)}"
            self.writes = f"DELETE retrysafe_records FROM {given} {where}"
        else:
            changes = f"SET state = '{after}', {writes}"
            self.of_one = f"UPDATE retrysafe_records {_of_one(changes)} WHERE {_of_one(condition)}"
            self.writes = f"UPDATE {given} {_of_given(changes)} {where}"


_CHANGES = {kind: _Change(event, writes) for kind, (event, writes) in sql.MOVES.items()}

_CLAIM = (
    f"INSERT INTO retrysafe_records ({', '.join(sql.FIRST)})"
    f" SELECT {_of_given(', '.join(sql.FIRST.values()), _NOW)} FROM ({{given}}) AS given"
    " LEFT JOIN retrysafe_records AS seen ON seen.record_id = given.its_record_id WHERE seen.record_id IS NULL"
    " ON DUPLICATE KEY UPDATE state = retrysafe_records.state"
)

_RECORDS = f"SELECT record_id, {_NOW_OF_RECORD}, {sql.COLUMNS} FROM retrysafe_records WHERE record_id IN ({{}})"

_DETAILS = _RECORDS.replace(" FROM", ", request, journal FROM")
_HISTORIES = (
    f"SELECT record_id, entry FROM retrysafe_history WHERE record_id IN ({{}}) AND forget_at_ms > {_NOW} ORDER BY place"
)
_ADD_HISTORY = (
    f"INSERT INTO retrysafe_history ({', '.join(sql.ADDED)})"
    f" SELECT {_of_given(', '.join(sql.ADDED.values()), _NOW)} FROM ({{given}}) AS given"
)

COUNTED_AT_ONCE = 5_000  # records

_RESPONSES = _placed(sql.RESPONSES)
_PORTION_END = _placed(sql.PORTION_END)
_LISTED = _placed(sql.RECORDS)


def _abandoned() -> str:
    """These servers index no part of a table: what was abandoned has a column of its own, with the end of its lease."""
    columns, where, conditions = _placed(_timed(sql.ABANDONED, _NOW)).partition(" WHERE ")
    return columns + where + conditions.replace("lease_until_ms", "abandoned_from_ms")


_ABANDONED = _abandoned()
_RECORD_COUNTS = (
    "SELECT route, state, COUNT(*), SUM(size_bytes), MIN(claimed_at_ms), MAX(record_id)"
    " FROM (SELECT record_id, route, state, COALESCE(LENGTH(response), 0) AS size_bytes, claimed_at_ms"
    " FROM retrysafe_records WHERE record_id > {} ORDER BY record_id LIMIT {}) AS some_records"
    " GROUP BY route, state"
)
_ANSWER_COUNTS = _placed(sql.ANSWER_COUNTS)
_FORGET_ANSWERS = _placed(sql.FORGET_ANSWERS).format(last_day=f"{_NOW} DIV {DAY_MS} - {ANSWER_DAYS_KEPT}")
_COUNT_ANSWERS = (
    "INSERT INTO retrysafe_answers (day, route, recorded, replayed)"
    f" SELECT {_NOW} DIV {DAY_MS}, given.its_route, given.its_recorded, given.its_replayed FROM ({{given}}) AS given"
    " ON DUPLICATE KEY UPDATE recorded = retrysafe_answers.recorded + given.its_recorded,"
    " replayed = retrysafe_answers.replayed + given.its_replayed"
)

_DUE = f"FROM retrysafe_records WHERE due_at_ms <= {_NOW}"
_PURGE_TAKE = f"SELECT record_id {_DUE} ORDER BY due_at_ms LIMIT {{}} FOR UPDATE SKIP LOCKED"
_PURGE_MORE = f"SELECT 1 {_DUE} LIMIT 1 FOR UPDATE SKIP LOCKED"
_ENTRIES_DUE = f"FROM retrysafe_history WHERE forget_at_ms <= {_NOW}"
_ENTRIES_TAKE = f"SELECT place {_ENTRIES_DUE} ORDER BY forget_at_ms LIMIT {{}} FOR UPDATE SKIP LOCKED"
_ENTRIES_MORE = f"SELECT 1 {_ENTRIES_DUE} LIMIT 1 FOR UPDATE SKIP LOCKED"
_ENTRIES_PURGE = "DELETE FROM retrysafe_history WHERE place IN ({})"


def _purging(event: Event, writes: str) -> str:
    """What a purge does to those that it took."""
    after, where = target(event), f"WHERE record_id IN ({{record_ids}}) AND {_timed(sql.purgeable(event), _NOW)}"
    if after is None:
        return f"DELETE FROM retrysafe_records {where}"
    return f"UPDATE retrysafe_records SET state = '{after}', {_timed(writes, _NOW)} {where}"


_PURGES = {event: _purging(event, writes) for event, (writes, _) in sql.PURGES.items()}


# --- plans --------------------------------------------------------------------------------------


def plan_of(transitions: Sequence[Transition[Any]], clock_sql: str, told_ms: int = 0) -> Plan[list[Any]]:
    """The plan that does all of these or none, and answers them in order.

    Args:
        transitions: of one kind, on different records, sorted by record; one, if it is on many records.
        clock_sql: an expression that is the time in milliseconds.
        told_ms: the latest time that this process was told.
    """
    time = f"SET {_NOW} = GREATEST(({clock_sql}), {literal(told_ms)})"
    match transitions[0]:
        case ClaimIfAbsent() | Read():
            return _claim_or_read(cast(Sequence[ClaimIfAbsent | Read], transitions), time)
        case ReadDetails():
            return _read_details(cast(Sequence[ReadDetails], transitions), time)
        case AddHistory():
            return _add_history(transitions, time)
        case first if type(first) in _CHANGES:
            return _change(transitions, time)
        case first:
            return _plan_of_many(first, time)


def _plan_of_many(transition: Transition[Any], time: str) -> Plan[list[Any]]:
    match transition:
        case Purge(batch_max):
            return _purge(batch_max, time)
        case ListRecords():
            return _list_records(transition, time)
        case ListAbandoned():
            return _list_abandoned(transition, time)
        case ListResponses(after, batch_max):
            return _list_responses(after, batch_max)
        case CountAnswers(counts):
            return _count_answers(counts, time)
        case TakeStats(days):
            return _take_stats(days, time)
        case _:
            raise AssertionError(f"no plan for {type(transition).__name__}")


def _claim_or_read(transitions: Sequence[ClaimIfAbsent | Read], time: str) -> Plan[list[Any]]:
    record_ids = [transition.record_id for transition in transitions]
    claiming = isinstance(transitions[0], ClaimIfAbsent)
    claims = _inserts(_CLAIM, [*map(_values, transitions)]) if claiming else []
    results = yield "; ".join([time, *claims, _RECORDS.format(_literals(record_ids))])
    found = {row[0]: _found(row) for row in cast(Rows, results[-1])}
    if claiming and len(found) < len(transitions):
        raise Vanished
    return [found.get(record_id) for record_id in record_ids]


def _inserts(text: str, values: Sequence[Mapping[str, str]]) -> list[str]:
    """Statements that insert all of these."""
    small, large = _by_size(values)
    groups = [small] * bool(small) + [[one] for one in large]
    return [text.format(given=_given(group[0], group)) for group in groups]


def _literals(values: Iterable[bytes]) -> str:
    return ", ".join(map(literal, values))


def _found(row: Sequence[Any]) -> Found:
    """A row of `_RECORDS`: the id, the time, the record."""
    return Found(Record(State(row[2]), *_decoded(row[3:])), int(row[1]))


def _decoded(row: Sequence[Any]) -> Sequence[Any]:
    """The columns of a record, of which the route is the last."""
    return [*row[:-1], row[-1].decode()]


def _read_details(reads: Sequence[ReadDetails], time: str) -> Plan[list[Any]]:
    record_ids = _literals(read.record_id for read in reads)
    _, rows, entries = yield "; ".join([time, _DETAILS.format(record_ids), _HISTORIES.format(record_ids)])
    kept = {row[0]: row for row in cast(Rows, rows)}
    histories: dict[bytes, list[bytes]] = {}
    for record_id, entry in cast(Rows, entries):
        histories.setdefault(record_id, []).append(entry)
    return [_details(kept.get(read.record_id), histories.get(read.record_id, ())) for read in reads]


def _details(row: Sequence[Any] | None, history: Sequence[bytes]) -> Details:
    """A row of `_DETAILS`, if there is one, with the entries of the history."""
    if row is None:
        return Details(None, None, None, tuple(history))
    return Details(_found(row[:-2]), row[-2], row[-1], tuple(history))


def _add_history(additions: Sequence[Transition[Any]], time: str) -> Plan[list[Any]]:
    yield "; ".join([time, *_inserts(_ADD_HISTORY, [*map(_values, additions)])])
    return [True] * len(additions)


def _change(transitions: Sequence[Transition[Any]], time: str) -> Plan[list[Any]]:
    change = _CHANGES[type(transitions[0])]
    values = [*map(_values, transitions)]
    if len(transitions) == 1:
        _, matched = yield f"{time}; {change.of_one.format(**values[0])}"
        return [matched == 1]
    if any(_size(one, change.key) > _ROW_CHARACTERS_MAX for one in values):
        each = [change.of_one.format(**one) for one in values]
        _, _, *counts, _ = yield "; ".join(["START TRANSACTION", time, *each, "COMMIT"])
        return [matched == 1 for matched in counts]
    locks = change.locks.format(given=_given(change.key, values))
    small, large = _by_size(values)
    writes = [change.writes.format(given=_given(small[0], small))] if small else []
    writes += [change.of_one.format(**one) for one in large]
    _, _, locked, *_ = yield "; ".join(["START TRANSACTION", time, locks, *writes, "COMMIT"])
    done = {record_id for (record_id,) in cast(Rows, locked)}
    return [record_of(transition) in done for transition in transitions]


def _by_size(values: Sequence[Mapping[str, str]]) -> tuple[list[Mapping[str, str]], list[Mapping[str, str]]]:
    """Those that fit into the table `given`, and those that do not."""
    small: list[Mapping[str, str]] = []
    large: list[Mapping[str, str]] = []
    for one in values:
        (small if _size(one, one) <= _ROW_CHARACTERS_MAX else large).append(one)
    return small, large


def _size(values: Mapping[str, str], names: Iterable[str]) -> int:
    """How many characters these are."""
    return sum(len(values[name]) for name in names)


def _purge(batch_max: int, time: str) -> Plan[list[Any]]:
    """What is locked is in somebody's hands, perhaps another purge's: it is left out, and not waited for."""
    take = _PURGE_TAKE.format(int(batch_max)), _ENTRIES_TAKE.format(int(batch_max))
    _, _, due, over = yield "; ".join(["START TRANSACTION", time, *take])
    if not due and not over:
        yield "COMMIT"
        return [Purged(expired=0, forgotten=0, more=False)]
    record_ids = _literals(record_id for (record_id,) in cast(Rows, due))
    statements = [statement.format(record_ids=record_ids) for statement in _PURGES.values()] if due else []
    places = ", ".join(str(place) for (place,) in cast(Rows, over))
    entries = [_ENTRIES_PURGE.format(places)] if over else []
    *counts, more, more_entries = yield "; ".join([*statements, *entries, "COMMIT", _PURGE_MORE, _ENTRIES_MORE])
    count = dict.fromkeys(_PURGES, 0) | dict(zip(_PURGES if due else (), cast(Sequence[int], counts), strict=False))
    more = bool(more) or bool(more_entries)
    return [Purged(expired=count[Event.EXPIRE], forgotten=count[Event.FORGET], more=more)]


def _list_records(wish: ListRecords, time: str) -> Plan[list[Any]]:
    portion_end = _PORTION_END.format(after=literal(wish.after), skipped=sql.PORTION - 1)
    _, now, ends = yield f"{time}; SELECT {_NOW}; {portion_end}"
    values = {name: literal(value) for name, value in records_values(wish, cast(Rows, ends)).items()}
    (rows,) = yield _LISTED.format(**values)
    now_ms = int(cast(Rows, now)[0][0])
    return [records_page_of([*map(_decoded, cast(Rows, rows))], now_ms, wish.batch_max, cast(Rows, ends))]


def _list_abandoned(wish: ListAbandoned, time: str) -> Plan[list[Any]]:
    values = {name: literal(value) for name, value in abandoned_values(wish).items()}
    _, now, rows = yield f"{time}; SELECT {_NOW}; {_ABANDONED.format(**values)}"
    return [abandoned_page_of([*map(_decoded, cast(Rows, rows))], int(cast(Rows, now)[0][0]), wish.batch_max)]


def _list_responses(after: bytes, batch_max: int) -> Plan[list[Any]]:
    (rows,) = yield _RESPONSES.format(after=literal(after), batch_max=literal(batch_max))
    return [page_of(cast(Rows, rows), batch_max)]


def _count_answers(counts: Sequence[AnswerCount], time: str) -> Plan[list[Any]]:
    statements = ["START TRANSACTION", time, _FORGET_ANSWERS, "COMMIT"]
    if counts:
        values = [{name: literal(getattr(count, name)) for name in _COUNTED} for count in summed(counts)]
        statements.insert(-1, _COUNT_ANSWERS.format(given=_given(_COUNTED, values)))
    yield "; ".join(statements)
    return [True]


def _take_stats(days: int, time: str) -> Plan[list[Any]]:
    _, now = yield f"{time}; SELECT {_NOW}"
    now_ms = int(cast(Rows, now)[0][0])
    groups: dict[tuple[str, str], tuple[int, int, int]] = {}
    after = b""
    while portion := cast(Rows, (yield _RECORD_COUNTS.format(literal(after), COUNTED_AT_ONCE))[0]):
        for route, state, records, size_bytes, oldest_ms, _ in portion:
            before = groups.get((route.decode(), state), (0, 0, oldest_ms))
            groups[route.decode(), state] = before[0] + records, before[1] + size_bytes, min(before[2], oldest_ms)
        after = max(row[-1] for row in portion)
    (answers,) = yield _ANSWER_COUNTS.format(last_day=literal(now_ms // DAY_MS - days))
    counted = [(route.decode(), *sums) for route, *sums in cast(Rows, answers)]
    return [stats_of(now_ms, [(*group, *sums) for group, sums in groups.items()], counted)]


_COUNTED = tuple(field.name for field in fields(cast(Any, AnswerCount)))


def _values(transition: Any) -> dict[str, str]:
    """The attributes of a transition as literals under their names, its claim's among them."""
    values = {name: getattr(transition, name) for name in _ATTRIBUTES[type(transition)]}
    if claim := values.pop("claim", None):
        values["record_id"], values["token"] = claim.record_id, claim.token
    return {name: literal(one) for name, one in values.items()}


_KINDS: tuple[type[Transition[Any]], ...] = (ClaimIfAbsent, AddHistory, *sql.MOVES)
_ATTRIBUTES = {kind: tuple(field.name for field in fields(cast(Any, kind))) for kind in _KINDS}
