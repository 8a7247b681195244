"""The Lua of the transitions says what the table says, and every sequence of transitions ends as in memory."""

from __future__ import annotations

import inspect
import re

import pytest
from hypothesis import settings

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
from retrysafe.stores import redis_client, redis_plan, redis_scripts, redis_wire
from retrysafe.stores.memory import MemoryStore
from retrysafe.stores.redis_scripts import LETTERS, Scripts
from retrysafe.testing.machine import store_machine
from tests.stores import redis_stores
from tests.stores.redis_stores import single, timed_store

servers_end = redis_stores.servers_end

CHANGES = Scripts().changes
SCRIPTS = {
    Event.TAKE_OVER: CHANGES[TakeOverIfLapsed],
    Event.RECLAIM: CHANGES[ClaimIfRetryable],
    Event.RENEW: CHANGES[RenewIfHeld],
    Event.JOURNAL: CHANGES[KeepJournalIfHeld],
    Event.COMPLETE: CHANGES[CompleteIfHeld],
    Event.RELEASE: CHANGES[ReleaseIfHeld],
    Event.DISCARD: CHANGES[DiscardIfHeld],
    Event.GIVE_UP: CHANGES[MarkUnknownIfHeld],
    Event.ABANDON: CHANGES[MarkUnknownIfLapsed],
    Event.RESOLVE: CHANGES[CompleteIfUnknown],
    Event.RULE_OUT: CHANGES[ReleaseIfUnknown],
    Event.REVOKE: CHANGES[RevokeIfSeen],
    Event.ERASE: CHANGES[ForgetIfSeen],
    Event.RESEAL: CHANGES[ReplaceResponseIfSame],
    Event.FORGET: CHANGES[ForgetIfOver],
}


@pytest.mark.parametrize("event", list(SCRIPTS))
def test_script_has_the_states_of_its_event(event):
    """A script asks for just the states that its event may come from, and leads to where it leads."""
    text = SCRIPTS[event].text
    (letters,) = re.findall(r"string\.find\('(\w+)', record\.state", text)
    assert letters == "".join(LETTERS[state] for state in sources(event))
    after = target(event)
    written = re.findall(r"record\.state = '(\w)'", text)
    assert written == ([] if after is None else [LETTERS[after]])
    assert ("'DEL', KEYS[1]" in text) is (after is None)


def test_every_event_has_its_script():
    """All that can happen to a record is said in Lua; a purge does what is left."""
    assert set(SCRIPTS) == set(Event) - {Event.CLAIM, Event.EXPIRE}
    assert set(CHANGES.values()) == set(SCRIPTS.values())


def test_letters_stand():
    """What is written in records stays readable: each state keeps its letter."""
    assert {state.value: letter for state, letter in LETTERS.items()} == {
        "in_progress": "i",
        "completed": "c",
        "retryable": "r",
        "unknown": "u",
        "expired": "e",
    }


@pytest.mark.parametrize("module", [redis_scripts, redis_plan, redis_client, redis_wire])
def test_no_state_is_written_by_hand(module):
    """No state stands in quotes anywhere near Lua: it comes from the table."""
    text = inspect.getsource(module)
    assert not [state for state in State if f"'{state}'" in text or f'"{state}"' in text]
    assert not re.findall(r"record\.state [=~]=? '\w'", text)


def memory(clock, folder):
    return MemoryStore(clock)


TestLeanConnectionAgainstMemory = store_machine(memory, lambda clock, folder: timed_store(single(), clock, folder))
TestLeanConnectionAgainstMemory.settings = settings(max_examples=settings().max_examples // 3)
TestRedisPyAgainstMemory = store_machine(
    memory, lambda clock, folder: timed_store(f"{single()}?client=redis-py", clock, folder)
)
TestRedisPyAgainstMemory.settings = settings(max_examples=settings().max_examples // 5)
