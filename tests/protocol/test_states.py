"""The table of states, and the diagram that is drawn from it."""

import pytest

from retrysafe.model import State
from retrysafe.protocol.states import GUARDS, TABLE, UNFINISHED, Event, Guard, diagram, sources, target


def test_every_event_has_a_guard_and_a_move():
    """No event is named that nothing can do, and none is without a condition."""
    assert set(GUARDS) == set(Event)
    assert {event for _, event in TABLE} == set(Event)


def test_every_state_can_be_entered_and_left():
    """A record is stuck nowhere, and no state is only a name."""
    assert {after for after in TABLE.values() if after} == set(State)
    assert {before for before, _ in TABLE if before} == set(State)


@pytest.mark.parametrize("event", Event)
def test_an_event_leads_to_one_state(event):
    """Whatever a record was, an event makes the same of it; stores rely on it."""
    assert target(event) in {*State, None}


def test_a_completed_record_never_runs_again():
    """From completed there is no way to in progress but over absence, which time brings, or a hand (R66, R71)."""
    leaving = {event for (before, event), after in TABLE.items() if before is State.COMPLETED is not after}
    assert leaving == {Event.EXPIRE, Event.FORGET, Event.ERASE}
    assert {GUARDS[event] for event in leaving} == {Guard.LIFETIME_OVER, Guard.FORGETTABLE, Guard.UNCHANGED}


def test_unknown_is_left_by_knowledge_or_time_only():
    """Nobody runs what is unknown; its late owner settles it, or who looked, or it is forgotten in the end (I9)."""
    assert {event for before, event in TABLE if before is State.UNKNOWN} == {
        Event.COMPLETE,
        Event.RELEASE,
        Event.DISCARD,
        Event.RESOLVE,
        Event.RULE_OUT,
        Event.ERASE,
        Event.FORGET,
    }


def test_only_its_owner_or_the_end_of_its_lease_moves_a_record_in_progress():
    """A live claim cannot be taken from its owner (I8), but by hand; and then nobody has it."""
    moves = {event: after for (before, event), after in TABLE.items() if before is State.IN_PROGRESS}
    assert moves.pop(Event.REVOKE) is State.RETRYABLE
    assert {GUARDS[event] for event in moves} == {Guard.HELD, Guard.LAPSED}


def test_what_is_unfinished():
    """Those from which an attempt may go on, and those that an owner or somebody who looked may still complete."""
    onward = (State.IN_PROGRESS, State.COMPLETED)
    going_on = {before for (before, event), after in TABLE.items() if after in onward and event is not Event.RESEAL}
    assert set(UNFINISHED) == going_on - {None}


def test_sources_are_read_from_the_table():
    """What stores build their conditions from."""
    assert sources(Event.COMPLETE) == (State.IN_PROGRESS, State.UNKNOWN)
    assert sources(Event.CLAIM) == ()


def test_the_diagram_has_every_move():
    """One arrow for each entry, absence as the marker of begin and end."""
    arrows = [line.strip() for line in diagram().splitlines()[1:]]
    assert len(arrows) == len(TABLE)
    assert "[*] --> in_progress: claim (no record)" in arrows
    assert "in_progress --> [*]: discard (token is mine)" in arrows
