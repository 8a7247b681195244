"""The statements of the PostgreSQL store: each does a batch, in one round trip.

What a transition requires and writes is taken from `sql`, which builds it from the table of states. Here
stands only how a batch is said: its rows are arrays, one for each attribute, and the attribute `x` of a
transition is the column `asked_x`.

The time of a row is the server's clock, or the latest date in the record if the clock stepped back behind
it: so no record is dated before what it says of itself, over restarts and failovers too, and no row of the
whole store has to be written for that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, cast

from retrysafe.protocol.effects import ClaimIfAbsent, Transition
from retrysafe.protocol.states import Event, target
from retrysafe.stores import sql

# ruff: noqa: S608 - made of constants and of names that the operator chose and that are quoted; values are parameters

SERVER_CLOCK = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"

LOCK_MS = 2_000

_NOW = "greatest(clock_ms, claimed_at_ms, settled_at_ms)"
_ONE_NOW = "(SELECT clock_ms FROM clock)"  # known before the index is searched, and so a place to search for in it
_DUE = "(CASE WHEN response IS NULL THEN forget_at_ms ELSE expires_at_ms END)"  # as in the index


def _attributes(kind: type[Transition[Any]]) -> tuple[str, ...]:
    """The attributes of a transition, its claim's among them, in the order of the parameters."""
    names: list[str] = []
    for field in fields(cast(Any, kind)):
        names += ("record_id", "token") if field.name == "claim" else (field.name,)
    return tuple(names)


_KINDS: tuple[type[Transition[Any]], ...] = (ClaimIfAbsent, *sql.MOVES)
_ATTRIBUTES = {kind: _attributes(kind) for kind in _KINDS}


def parameters(transitions: Sequence[Transition[Any]]) -> list[list[Any]]:
    """The parameters of a batch of one kind: for each of its attributes, a list of what the transitions have."""
    first = transitions[0]
    return [
        [getattr(one if hasattr(first, name) else cast(Any, one).claim, name) for one in transitions]
        for name in _ATTRIBUTES[type(first)]
    ]


def _asked(kind: type[Transition[Any]]) -> str:
    """The batch as a table."""
    names = _ATTRIBUTES[kind]
    arrays = (f"${at}::{'bigint' if name.endswith('_ms') else 'bytea'}[]" for at, name in enumerate(names, 1))
    return f"unnest({', '.join(arrays)}) AS asked({', '.join(f'asked_{name}' for name in names)})"


def _filled(text: str, now: str) -> str:
    """A text of `sql` with the time and the columns of the batch in place of its parameters."""
    return re.sub(r":(\w+)", lambda name: now if name[1] == "now_ms" else f"asked_{name[1]}", text)


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
        return (
            f"WITH {self._clock} SELECT asked_record_id, {sql.COLUMNS}, {_NOW}, {self.in_recovery}"
            f" FROM unnest($1::bytea[]) AS asked(asked_record_id) CROSS JOIN clock"
            f" LEFT JOIN {self.records} ON record_id = asked_record_id"
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
        longest = f"SELECT 1 FROM {self.records} WHERE {_DUE} <= {_ONE_NOW} ORDER BY {_DUE} LIMIT 1"
        return f"WITH {self._clock} {longest}"  # ordered, so that the index says that nothing is

    @cached_property
    def purges(self) -> Mapping[Event, str]:
        """For each event of a purge: let it happen to as many as $1, of what has been due longest."""
        longest_due = f"FROM {self.records} WHERE {_DUE} <= {_ONE_NOW} ORDER BY {_DUE} LIMIT $1::bigint"
        if self.portable:
            these = f"record_id IN (SELECT record_id {longest_due})"
        else:  # by their places, and past what somebody else is at work on
            these = f"ctid = ANY (ARRAY(SELECT ctid {longest_due} FOR UPDATE SKIP LOCKED))"
        return {
            event: self._change(event, _filled(writes, "clock_ms"), "clock", f"{these} AND {self._purgeable(event)}")
            for event, (writes, _) in sql.PURGES.items()
        }

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
        clock = self.clock
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

    def _purgeable(self, event: Event) -> str:
        return _filled(sql.purgeable(event), "clock_ms")
