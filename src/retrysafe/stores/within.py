"""`CompleteIfHeld` for a connection of the application, in the SQL of each engine that can commit both together.

It is the statement of `stores.sql`, which is built from the table of states, for one record and with named values. The
tables are named in full, whatever the connection looks in first, and nothing is set on it that would outlast it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from retrysafe.protocol.states import target
from retrysafe.protocol.transitions import CompleteIfHeld
from retrysafe.stores import sql
from retrysafe.stores.contract import Completion

# ruff: noqa: S608 - made of constants of this package and of names that the operator chose and that are quoted

_EVENT, _WRITES = sql.MOVES[CompleteIfHeld]
_CONDITION = f"record_id = :record_id AND {sql.condition(_EVENT)}"
_OF_RECORD = "claimed_at_ms, COALESCE(settled_at_ms, 0)"  # no record is dated before what it already says

_TYPES = {"record_id": "bytea", "token": "bytea", "response": "bytea"}


def on_sqlite(now_ms: Callable[[], int], before: Sequence[str]) -> Completion:
    """For a connection to the store's own file.

    Args:
        now_ms: this host's clock; the time of the transaction is kept in the file, as by the store itself.
        before: to be done first, besides.
    """
    tick = "UPDATE main.meta SET clock_ms = max(clock_ms, :now_ms)"
    writes = _timed(_WRITES, "(SELECT clock_ms FROM main.meta)")
    return Completion(
        engine="sqlite",
        complete=f"UPDATE main.records SET state = '{target(_EVENT)}', {writes} WHERE {_CONDITION}",
        look="SELECT state, token FROM main.records WHERE record_id = :record_id",
        whose="SELECT secret_check FROM main.meta",
        now_ms=now_ms,
        before=(*before, tick),
    )


def on_postgres(schema: str, clock: str, now_ms: Callable[[], int]) -> Completion:
    """For a connection to the store's database.

    Args:
        schema: of the tables; a quoted name.
        clock: an SQL expression for the time in milliseconds.
        now_ms: the latest time that this process was told.
    """
    writes = _typed(_timed(_WRITES, f"greatest(clock_ms, {_OF_RECORD})"))
    time = f"clock AS MATERIALIZED (SELECT greatest({clock}, CAST(:now_ms AS bigint)) AS clock_ms)"
    return Completion(
        engine="postgresql",
        complete=f"WITH {time} UPDATE {schema}.records SET state = '{target(_EVENT)}', {writes} FROM clock"
        f" WHERE {_typed(_CONDITION)}",
        look=_typed(f"SELECT state, token FROM {schema}.records WHERE record_id = :record_id"),
        whose=f"SELECT secret_check FROM {schema}.meta",
        now_ms=now_ms,
    )


def on_mysql(database: str, clock: str, now_ms: Callable[[], int]) -> Completion:
    """For a connection to the store's server, whichever of its databases that is in.

    Args:
        database: of the tables.
        clock: an expression that is the time in milliseconds, the same all over one statement.
        now_ms: the latest time that this process was told.
    """
    place = "`{}`".format(database.replace("`", "``"))
    writes = _timed(_WRITES, f"GREATEST(({clock}), :now_ms, {_OF_RECORD})")
    return Completion(
        engine="mysql",
        complete=f"UPDATE {place}.retrysafe_records SET state = '{target(_EVENT)}', {writes} WHERE {_CONDITION}",
        look=f"SELECT state, token FROM {place}.retrysafe_records WHERE record_id = :record_id",
        whose=f"SELECT secret_check FROM {place}.retrysafe_meta",
        now_ms=now_ms,
    )


def _timed(text: str, now: str) -> str:
    return re.sub(r":now_ms\b", now, text)


def _typed(text: str) -> str:
    """With the type of each value: drivers guess it from the value, or from what stands around it."""
    return re.sub(r"(?<!:):(?!now_ms\b)(\w+)", lambda name: f"CAST({name[0]} AS {_TYPES.get(name[1], 'bigint')})", text)
