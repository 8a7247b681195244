"""The conditional writes of the DynamoDB store say what the table says."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields, is_dataclass

import pytest

from retrysafe.model import Record, State
from retrysafe.protocol import transitions
from retrysafe.protocol.effects import Transition
from retrysafe.protocol.states import Event, sources, target
from retrysafe.stores import dynamodb, dynamodb_items, dynamodb_table
from retrysafe.stores.dynamodb_items import BESIDE, CHANGES, CONTENTS, IN_PARTS, PURGE, RESEALS, names_of_parts

EVERY = [*CHANGES.values(), *IN_PARTS.values(), *RESEALS.values(), *PURGE]
OWN = {"write_id", "dated_at_ms", "forget_at_s", "response_bytes", "response_head", *BESIDE} | {
    name for of in CONTENTS for name in names_of_parts(of)
}
MANY = {
    transitions.Purge,
    transitions.ListAbandoned,
    transitions.ListRecords,
    transitions.ListResponses,
    transitions.CountAnswers,
    transitions.TakeStats,
}
OF_ONE = {transitions.AddHistory, transitions.ClaimIfAbsent, transitions.Read, transitions.ReadDetails}


@pytest.mark.parametrize("change", EVERY, ids=lambda change: change.event)
def test_change_has_the_states_of_its_event(change):
    """A change asks for just the states that its event may come from, and leads to where it leads."""
    (states,) = re.findall(r"#state IN \((.*?)\)", change.condition)
    assert states == ", ".join(f":{state}" for state in sources(change.event))
    after = target(change.event)
    assert change.update == "" if after is None else change.update.startswith(f"SET #state = :{after}, ")


@pytest.mark.parametrize("change", EVERY, ids=lambda change: change.event)
def test_change_is_by_token_and_never_dated_back(change):
    """Every change names a token, and is refused if it would be dated before the record."""
    assert re.search(r"#token = :(seen_)?token\b", change.condition)
    assert "#dated_at_ms <= :now_ms" in change.condition


@pytest.mark.parametrize("change", [change for change in EVERY if change.update], ids=lambda change: change.event)
def test_update_recognises_itself(change):
    """What may be sent again says by which request it was written, and when."""
    assert "#write_id = :write_id, #dated_at_ms = :now_ms" in change.update


def test_every_event_has_its_change():
    """All that can happen to a record is said, and there is no transition on a record that could not be done."""
    assert {change.event for change in EVERY} == set(Event) - {Event.CLAIM}
    kinds = [kind for kind in vars(transitions).values() if isinstance(kind, type) and is_dataclass(kind)]
    assert {*CHANGES, *MANY, *OF_ONE} == {kind for kind in kinds if issubclass(kind, Transition)}


def test_attributes_are_those_of_a_record():
    """No expression has an attribute that neither a record nor the store itself has."""
    known = {field.name for field in fields(Record)} | OWN
    assert set(re.findall(r"#(\w+)", " ".join(change.condition + change.update for change in EVERY))) <= known


@pytest.mark.parametrize("module", [dynamodb, dynamodb_items, dynamodb_table])
def test_no_state_is_written_by_hand(module):
    """No state stands in quotes, nor as a value of an expression: it comes from the table."""
    text = inspect.getsource(module)
    assert not [state for state in State if f'"{state}"' in text or re.search(rf"[ (]:{state}\b", text)]
