"""The statements of the PostgreSQL store: each does a batch, in one round trip.

What a transition requires and writes is taken from `sql`, which builds it from the table of states. Here
stands only how a batch is said: its rows are arrays, one for each attribute, and the attribute `x` of a
transition is the column `asked_x`.

The time of a row is the server's clock, or the latest date in the record if the clock stepped back behind
it: so no record is dated before what it says of itself, over restarts and failovers too, and no row of the
whole store has to be written for that. Nor does the time go back for one process: `$1` of each statement that asks for
the time is the latest that the process was told.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from operator import attrgetter
from typing import Any

from retrysafe.protocol.effects import Transition
from retrysafe.protocol.states import Event, target
from retrysafe.protocol.transitions import ANSWER_DAYS_KEPT, DAY_MS, AddHistory, AnswerCount, ClaimIfAbsent
from retrysafe.stores import sql

# ruff: noqa: S608 - made of constants and of names that the operator chose and that are quoted; values are parameters

SERVER_CLOCK = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"

LOCK_MS = 2_000

_NOW = "greatest(clock_ms, claimed_at_ms, settled_at_ms)"
_TODAY = f"(SELECT clock_ms / {DAY_MS} FROM clock)"
_ONE_NOW = "(SELECT clock_ms FROM clock)"  # known before the index is searched, and so a place to search for in it
_ENTRY_DUE = f"forget_at_ms <= {_ONE_NOW} ORDER BY forget_at_ms"
_DUE = "(CASE WHEN response IS NULL THEN forget_at_ms ELSE expires_at_ms END)"  # as in the index


_TYPES = {"bytes": "bytea", "bytes | None": "bytea", "int": "bigint", "str": "text", "State": "text"}


def _attributes(kind: type[Any]) -> dict[str, str]:
    """The attributes of a transition, its claim's among them, and their types; in the order of the parameters."""
    names: dict[str, str] = {}
    for field in fields(kind):
        if field.name == "claim":
            names |= {"record_id": "bytea", "token": "bytea"}
        else:
            names[field.name] = _TYPES[str(field.type)]
    return names


_KINDS: tuple[type[Transition[Any]], ...] = (ClaimIfAbsent, AddHistory, *sql.MOVES)
_ATTRIBUTES: dict[type[Any], dict[str, str]] = {kind: _attributes(kind) for kind in (*_KINDS, AnswerCount)}


def parameters(batch: Sequence[Any]) -> list[list[Any]]:
    """The parameters of a batch: for each of its attributes, a list of what the transitions have, or the counts.

    Args:
        batch: of one kind.
    """
    return [list(map(of_one, batch)) for of_one in _GETTERS[type(batch[0])]]


def _getters(kind: type[Any]) -> tuple[Callable[[Any], Any], ...]:
    """What reads each of the attributes, which may be the claim's."""
    own = {part.name for part in fields(kind)}
    paths = (name if name in own else f"claim.{name}" for name in _ATTRIBUTES[kind])
    # A state is given as the text that it is: of a text with a type of its own, drivers have their own ideas.
    return tuple(attrgetter("seen_state.value" if path == "seen_state" else path) for path in paths)


_GETTERS = {kind: _getters(kind) for kind in _ATTRIBUTES}


def _asked(kind: type[Any]) -> str:
    """The batch as a table."""
    names = _ATTRIBUTES[kind]
    arrays = (f"${at}::{type_name}[]" for at, type_name in enumerate(names.values(), 2))
    return f"unnest({', '.join(arrays)}) AS asked({', '.join(f'asked_{name}' for name in names)})"


def _filled(text: str, now: str) -> str:
    """A text of `sql` with the time and the columns of the batch in place of its parameters."""
    return re.sub(r":(\w+)", lambda name: now if name[1] == "now_ms" else f"asked_{name[1]}", text)


_GIVEN = {
    "after": "bytea",
    "after_ms": "bigint",
    "batch_max": "bigint",
    "last": "bytea",
    "last_day": "bigint",
    "now_ms": "bigint",
    "route": "text",
    "skipped": "bigint",
    "states": "text",
}


@dataclass(frozen=True)
class Question:
    """A statement that is given values of its own, and not a batch.

    Attributes:
        text: with `$1` and so on.
        names: of the values, in their order.
    """

    text: str
    names: Sequence[str]

    def values(self, given: Mapping[str, Any]) -> Sequence[Any]:
        """Those that it is given, in their order."""
        return [given[name] for name in self.names]


def _question(text: str) -> Question:
    names = list(dict.fromkeys(re.findall(r":(\w+)", text)))
    numbered = re.sub(r":(\w+)", lambda name: f"${names.index(name[1]) + 1}::{_GIVEN[name[1]]}", text)
    return Question(numbered, names)


@dataclass(frozen=True)
class Statements:
    """The statements for one place and one way of working.

    Attributes:
        schema: where the tables are; a quoted name.
        clock: an SQL expression for the time, in milliseconds.
        portable: use only what other engines that speak this protocol have as well.
    """

    schema: str
    clock: str = SERVER_CLOCK
    portable: bool = False

    @cached_property
    def claim(self) -> str:
        """Insert what is not there; answer with every record that was there, or was made.

        Only what was not seen is inserted, because an insertion would wait for whoever has the row locked.
        A record that another connection makes in just this moment is in neither part of the answer.
        """
        new = ", ".join(_filled(written, "clock_ms") for written in sql.FIRST.values())
        return (
            f"WITH {self._clock}, asked AS MATERIALIZED (SELECT * FROM {_asked(ClaimIfAbsent)}),"
            f" seen AS MATERIALIZED (SELECT record_id, {sql.COLUMNS}, {_NOW} AS now_ms"
            f" FROM asked JOIN {self.records} ON record_id = asked_record_id CROSS JOIN clock),"
            f" made AS (INSERT INTO {self.records} ({', '.join(sql.FIRST)}) SELECT {new} FROM asked CROSS JOIN clock"
            " WHERE asked_record_id NOT IN (SELECT record_id FROM seen) ON CONFLICT (record_id) DO NOTHING"
            f" RETURNING record_id, {sql.COLUMNS})"
            f" SELECT * FROM seen UNION ALL SELECT record_id, {sql.COLUMNS}, claimed_at_ms FROM made"
        )

    @cached_property
    def read(self) -> str:
        """A row for each record that was asked for, whether it is there or not; and is the answer a standby's?"""
        return self._read("")

    @cached_property
    def details(self) -> str:
        """As for `read`, with the request and the journal."""
        return self._read(", request, journal")

    def _read(self, more: str) -> str:
        return (
            f"WITH {self._clock} SELECT asked_record_id, {sql.COLUMNS}, {_NOW}, {self.in_recovery}{more}"
            f" FROM unnest($2::bytea[]) AS asked(asked_record_id) CROSS JOIN clock"
            f" LEFT JOIN {self.records} ON record_id = asked_record_id"
        )

    @cached_property
    def history(self) -> str:
        """The entries of the histories that were asked for, each with its record id; oldest first."""
        return (
            f"WITH {self._clock} SELECT record_id, entry FROM clock CROSS JOIN {self.schema}.history"
            " WHERE record_id = ANY ($2::bytea[]) AND forget_at_ms > clock_ms ORDER BY place"
        )

    @cached_property
    def add_history(self) -> str:
        """Add a batch of entries, each to another history; it answers with the ids of those that it added to.

        The next place may be taken by another connection in just this moment: then it adds nothing.
        """
        new = ", ".join(_filled(written, "clock_ms") for written in sql.ADDED.values())
        latest = f"SELECT max(place) FROM {self.schema}.history WHERE record_id = asked_record_id"
        return (
            f"WITH {self._clock} INSERT INTO {self.schema}.history ({', '.join(sql.ADDED)}, place)"
            f" SELECT {new}, coalesce(({latest}), 0) + 1 FROM {_asked(AddHistory)} CROSS JOIN clock"
            " ON CONFLICT (record_id, place) DO NOTHING RETURNING record_id"
        )

    @cached_property
    def changes(self) -> Mapping[type[Transition[Any]], str]:
        """One for each kind of compare-and-set; it answers with the ids of the records that it changed."""
        return {kind: self._change_of(kind, *move) for kind, move in sql.MOVES.items()}

    def _change_of(self, kind: type[Transition[Any]], event: Event, writes: str) -> str:
        where = f"record_id = asked_record_id AND {_filled(sql.condition(event), _NOW)}"
        return self._change(event, _filled(writes, _NOW), f"clock, {_asked(kind)}", where)

    @cached_property
    def due(self) -> str:
        """Is anything due? A row if so."""
        record = f"SELECT 1 FROM {self.records} WHERE {_DUE} <= {_ONE_NOW} ORDER BY {_DUE} LIMIT 1"
        entry = f"SELECT 1 FROM {self.schema}.history WHERE {_ENTRY_DUE} LIMIT 1"
        return f"WITH {self._clock} ({record}) UNION ALL ({entry})"  # ordered, so that the index says that nothing is

    @cached_property
    def purges(self) -> Mapping[Event, str]:
        """For each event of a purge: let it happen to as many as $2, of what has been due longest."""
        longest_due = f"FROM {self.records} WHERE {_DUE} <= {_ONE_NOW} ORDER BY {_DUE} LIMIT $2::bigint"
        if self.portable:
            these = f"record_id IN (SELECT record_id {longest_due})"
        else:  # by their places, and past what somebody else is at work on
            these = f"ctid = ANY (ARRAY(SELECT ctid {longest_due} FOR UPDATE SKIP LOCKED))"
        return {
            event: self._change(event, _filled(writes, "clock_ms"), "clock", f"{these} AND {self._purgeable(event)}")
            for event, (writes, _) in sql.PURGES.items()
        }

    @cached_property
    def purge_history(self) -> str:
        """Delete as many as $2 entries whose time is over."""
        longest_due = f"FROM {self.schema}.history WHERE {_ENTRY_DUE} LIMIT $2::bigint"
        if self.portable:
            these = f"(record_id, place) IN (SELECT record_id, place {longest_due})"
        else:
            these = f"ctid = ANY (ARRAY(SELECT ctid {longest_due} FOR UPDATE SKIP LOCKED))"
        return f"WITH {self._clock} DELETE FROM {self.schema}.history WHERE {these} RETURNING place"

    @cached_property
    def now(self) -> str:
        """The time."""
        return f"WITH {self._clock} SELECT clock_ms FROM clock"

    @cached_property
    def responses(self) -> Question:
        """The heads of some stored responses."""
        return _question(self._placed(sql.RESPONSES))

    @cached_property
    def portion_end(self) -> Question:
        """Up to which record a page of `listed` looks."""
        return _question(self._placed(sql.PORTION_END))

    @cached_property
    def listed(self) -> Question:
        """Some records in some states."""
        return _question(self._placed(sql.RECORDS).replace("instr(", "strpos("))

    @cached_property
    def abandoned(self) -> Question:
        """Some records that were abandoned."""
        return _question(self._placed(sql.ABANDONED))

    @cached_property
    def record_counts(self) -> str:
        """How many records there are of each route and state."""
        return self._placed(sql.RECORD_COUNTS)

    @cached_property
    def answer_counts(self) -> Question:
        """The answers of each route, of the latest days."""
        return _question(self._placed(sql.ANSWER_COUNTS))

    @cached_property
    def forget_answers(self) -> str:
        """Delete the answers of days that are long over."""
        of_before = self._placed(sql.FORGET_ANSWERS).replace(":last_day", f"{_TODAY} - {ANSWER_DAYS_KEPT}")
        return f"WITH {self._clock} {of_before} RETURNING day"

    @cached_property
    def count_answers(self) -> str:
        """Add a batch of counts, each of another route, to those of the day; it answers with the routes."""
        return (
            f"WITH {self._clock} INSERT INTO {self.schema}.answers (day, route, recorded, replayed)"
            f" SELECT {_TODAY}, asked_route, asked_recorded, asked_replayed FROM {_asked(AnswerCount)}"
            " ON CONFLICT (day, route) DO UPDATE SET"
            " recorded = answers.recorded + excluded.recorded, replayed = answers.replayed + excluded.replayed"
            " RETURNING route"
        )

    @property
    def records(self) -> str:
        """The table of records."""
        return f"{self.schema}.records"

    @property
    def in_recovery(self) -> str:
        """An SQL expression: is this server one that only follows another?"""
        return "false" if self.portable else "pg_is_in_recovery()"

    @property
    def _clock(self) -> str:
        """The time, read once for each statement. With it the lock timeout is set, of this statement alone.

        What is set for a connection is set, behind a pooler, for whoever gets that connection next.
        """
        clock = f"greatest({self.clock}, $1::bigint)"
        if not self.portable:
            clock = f"CASE WHEN set_config('lock_timeout', '{LOCK_MS}', true) IS NOT NULL THEN {clock} END"
        return f"clock AS MATERIALIZED (SELECT {clock} AS clock_ms)"

    def _change(self, event: Event, writes: str, source: str, where: str) -> str:
        """Move the records to where `event` leads, which may be out of the table."""
        after = target(event)
        if after is None:
            change = f"DELETE FROM {self.records} USING {source}"
        else:
            change = f"UPDATE {self.records} SET state = '{after}', {writes} FROM {source}"
        return f"WITH {self._clock} {change} WHERE {where} RETURNING record_id"

    def _placed(self, text: str) -> str:
        """A text of `sql` with its tables where they are."""
        return re.sub(r"\b(FROM|INTO) (\w+)", rf"\1 {self.schema}.\2", text)

    def _purgeable(self, event: Event) -> str:
        return _filled(sql.purgeable(event), "clock_ms")
