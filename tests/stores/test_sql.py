"""The SQL of the transitions says what the table says."""

from __future__ import annotations

import inspect
import re

import pytest

from retrysafe.model import State
from retrysafe.protocol.states import Event, sources, target
from retrysafe.protocol.transitions import (
    ClaimIfRetryable,
    CompleteIfHeld,
    CompleteIfUnknown,
    DiscardIfHeld,
    ForgetIfOver,
    ForgetIfSeen,
    KeepJournalIfHeld,
    MarkUnknownIfHeld,
    MarkUnknownIfLapsed,
    ReleaseIfHeld,
    ReleaseIfUnknown,
    RenewIfHeld,
    ReplaceResponseIfSame,
    RevokeIfSeen,
    TakeOverIfLapsed,
)
from retrysafe.stores import plan, sql, sqlite_session
from retrysafe.stores.sqlite_file import SqliteFile, migrations

STATEMENTS = {
    Event.TAKE_OVER: sql.CHANGES[TakeOverIfLapsed],
    Event.RECLAIM: sql.CHANGES[ClaimIfRetryable],
    Event.RENEW: sql.CHANGES[RenewIfHeld],
    Event.JOURNAL: sql.CHANGES[KeepJournalIfHeld],
    Event.COMPLETE: sql.CHANGES[CompleteIfHeld],
    Event.RELEASE: sql.CHANGES[ReleaseIfHeld],
    Event.DISCARD: sql.CHANGES[DiscardIfHeld],
    Event.GIVE_UP: sql.CHANGES[MarkUnknownIfHeld],
    Event.ABANDON: sql.CHANGES[MarkUnknownIfLapsed],
    Event.RESOLVE: sql.CHANGES[CompleteIfUnknown],
    Event.RULE_OUT: sql.CHANGES[ReleaseIfUnknown],
    Event.REVOKE: sql.CHANGES[RevokeIfSeen],
    Event.RESEAL: sql.CHANGES[ReplaceResponseIfSame],
    Event.ERASE: sql.CHANGES[ForgetIfSeen],
    Event.FORGET: sql.CHANGES[ForgetIfOver],
    Event.EXPIRE: sql.PURGE_EXPIRE,
}


@pytest.mark.parametrize("event", list(STATEMENTS))
def test_statement_has_the_states_of_its_event(event):
    """A statement asks for just the states that its event may come from, and leads to where it leads."""
    before, _, condition = STATEMENTS[event].partition(" WHERE ")
    (states,) = re.findall(r"state IN \((.*?)\)", condition)
    assert states == ", ".join(f"'{state}'" for state in sources(event))
    after = target(event)
    assert before.startswith("DELETE FROM records" if after is None else f"UPDATE records SET state = '{after}', ")


def test_every_event_has_its_statement():
    """All that can happen to a record is said in SQL, and every statement is one of these."""
    assert set(STATEMENTS) == set(Event) - {Event.CLAIM}
    assert set(sql.CHANGES.values()) < set(STATEMENTS.values())


FOR_PEOPLE = {"RECORD_COUNTS", "ANSWER_COUNTS"}  # which count everything, and no request asks for
EVERY = {
    name: text
    for name, text in vars(sql).items()
    if name[0] != "_"
    and name not in FOR_PEOPLE
    and isinstance(text, str)
    and text.startswith(("SELECT ", "INSERT ", "UPDATE ", "DELETE "))
}


@pytest.mark.parametrize("text", [*EVERY.values(), *sql.CHANGES.values()], ids=[*EVERY, *map(str, sql.CHANGES)])
def test_no_statement_looks_at_every_record(text, tmp_path):
    """However many records there are, each statement finds its own by an index."""
    file = SqliteFile(tmp_path / "records.db", force=False, busy_ms=0, migrations=migrations())
    connection = file.connect()
    values = dict.fromkeys(re.findall(r":(\w+)", text))
    steps = [step for _, _, _, step in connection.execute(f"EXPLAIN QUERY PLAN {text}", values)]
    connection.close()
    assert not [step for step in steps if "SCAN" in step and "meta" not in step]


SCRIPTS = [step.script for step in migrations()]


@pytest.mark.parametrize("text", [*map(inspect.getsource, (sql, plan, sqlite_session)), *SCRIPTS])
def test_no_state_is_written_by_hand(text):
    """No state stands in quotes anywhere near SQL: it comes from the table."""
    assert not [state for state in State if f"'{state}'" in text or f'"{state}"' in text]
