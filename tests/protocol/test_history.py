"""Entries of a history: what is written is read, and what cannot be read is said."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrysafe.model import Found, Record, Response, State
from retrysafe.protocol import history
from retrysafe.protocol.history import (
    ACTOR_BYTES_MAX,
    NOTE_BYTES_MAX,
    Action,
    Attempt,
    End,
    Foreign,
    Intervention,
    WithoutEffect,
)
from retrysafe.protocol.policy import Policy
from retrysafe.protocol.transitions import HISTORY_ENTRY_BYTES_MAX

TEXT = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), max_size=50)
INSTANT = st.integers(0, 1 << 53)
ENTRIES = st.one_of(
    st.builds(Attempt, st.integers(1, 9), TEXT, INSTANT, INSTANT, st.sampled_from(End), st.none() | INSTANT),
    st.builds(
        Intervention,
        st.sampled_from(Action),
        TEXT,
        TEXT,
        INSTANT,
        st.integers(1, 9),
        TEXT,
        st.sampled_from(State),
        TEXT,
        st.booleans(),
    ),
    st.builds(WithoutEffect, st.sampled_from(Action), TEXT, INSTANT, TEXT),
)
STEPPED_IN = Intervention(Action.NOT_DONE, "ann", "looked it up", 5, 2, "0badcafe", State.UNKNOWN)


@given(st.lists(ENTRIES, max_size=5))
def test_what_is_added_is_read(entries):
    """Every kind of entry, whatever it says; twice the same stands once, where it stood first."""
    assert history.read([history.encode(entry) for entry in entries + entries]) == tuple(dict.fromkeys(entries))


@pytest.mark.parametrize(
    "encoded",
    [
        b"", b"\xff", b"[]", b"{}", b'{"v":2,"kind":"attempt"}', b'{"v":1,"kind":"dance"}', b'{"v":1,"kind":"attempt"}',
        b'{"v":1,"kind":"attempt","number":true,"token":"a","claimed_at_ms":1,"lease_until_ms":1,"end":"lapsed","settled_at_ms":null}',
        b'{"v":1,"kind":"without effect","action":"dance","actor":"a","at_ms":1,"token":"a"}',
        b'{"v":1,"kind":"without effect","action":7,"actor":"a","at_ms":1,"token":"a"}',
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said(encoded):
    """An entry of a newer release, or a damaged one, hides none of the others."""
    foreign, ours = history.read([encoded, history.encode(STEPPED_IN)])
    assert isinstance(foreign, Foreign)
    assert ours == STEPPED_IN


def test_the_largest_entry_can_be_kept():
    """A note in which every character is escaped; beyond that it is refused, and not cut."""
    largest = Intervention(
        Action.COMPLETED, '"' * ACTOR_BYTES_MAX, '"' * NOTE_BYTES_MAX, 1 << 53, 1 << 53, "0" * 8, State.IN_PROGRESS,
        "0" * 16, proposed=True,
    )  # fmt: skip
    assert len(history.adding(bytes(32), largest, Policy()).entry) <= HISTORY_ENTRY_BYTES_MAX
    with pytest.raises(ValueError, match="at most 8192"):
        history.adding(bytes(32), Intervention(Action.COMPLETED, "", "x" * 9_000, 1, 1, "", State.UNKNOWN), Policy())


def test_no_token_is_in_an_entry():
    """Who holds a token may settle the record; a history is for many eyes."""
    token = bytes(range(16))
    record = Record(State.RETRYABLE, token, 1, b"f", 0, 0, 0, 7, None, 9, None)
    for entry in (
        history.attempt_of(record, End.RELEASED),
        history.intervention_in(Found(record, 1), Action.FORGET, "ann", "why"),
    ):
        assert token.hex() not in history.encode(entry).decode()
        assert json.loads(history.encode(entry))["token"] == history.token_name(token) != token.hex()[:8]


def test_an_intervention_that_came_too_late():
    """The word for it belongs to this intervention and to no other one like it."""
    other = Intervention(Action.NOT_DONE, "ann", "again", 6, 2, "0badcafe", State.UNKNOWN)
    entries: list[history.Entry] = [STEPPED_IN, history.without_effect(STEPPED_IN), other]
    assert [history.is_withdrawn(each, entries) for each in (STEPPED_IN, other)] == [True, False]


def test_who_approves_is_somebody_else_who_approves_the_same():
    """Another person, the same deed, the same claim, the same answer, and a proposal of it."""
    proposed = replace(STEPPED_IN, actor="bob", proposed=True, answer="a")
    doing = replace(STEPPED_IN, answer="a", at_ms=9, state=State.IN_PROGRESS)
    assert history.is_proposed_by_another(doing, [proposed])
    for other in (
        {"actor": "ann"},
        {"proposed": False},
        {"answer": "b"},
        {"token": "00000000"},
        {"action": Action.FORGET},
    ):
        assert not history.is_proposed_by_another(doing, [replace(proposed, **other), Foreign("x")])


def test_answers_have_different_names():
    """Status, fields and content each make a difference, also where one runs into the next."""
    answers = [
        Response(200, ()), Response(201, ()), Response(200, (), b"a"), Response(200, ((b"a", b""),)),
        Response(200, ((b"", b"a"),)), Response(200, ((b"a", b"b"),), b"c"), Response(200, ((b"a", b"bc"),)),
    ]  # fmt: skip
    assert len({history.answer_name(answer) for answer in answers}) == len(answers)


def test_the_page_shows_entries_as_they_are():
    """The examples of the record format are read, each as its kind."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "record-format.md").read_text("utf-8")
    examples = re.findall(r'```json\n(\{"v".*?)\n```', page)
    assert [type(history.decode(example.encode())) for example in examples] == [Attempt, Intervention, WithoutEffect]
