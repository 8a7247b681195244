"""Cases about many at once, on one store object and on several."""

from __future__ import annotations

import secrets
from itertools import combinations, permutations
from typing import Any

import pytest

from retrysafe.model import Claim, State
from retrysafe.protocol.effects import Transition
from retrysafe.protocol.states import GUARDS, TABLE, Event, Guard
from retrysafe.protocol.transitions import ClaimIfAbsent, ClaimIfRetryable, TakeOverIfLapsed
from retrysafe.testing.subject import (
    FINGERPRINT,
    KEEP_MS,
    LEASE_MS,
    REPEATABLE,
    WAIT_MS,
    Cases,
    Subject,
    token,
    took_effect,
    transition_of,
)

RACERS = 64

# Of a record in a state, what can happen to it once only. Claims are not here: each racer has a token of its own.
ONCE = [(before, event) for before, event in TABLE if before is not None and event not in REPEATABLE]

# What two sides may try at the same time. A purge is not here: it does more than one thing.
RIVALS = [
    (state, first, second)
    for state in State
    for (_, first), (_, second) in combinations([(before, event) for before, event in ONCE if before is state], 2)
    if Event.EXPIRE not in (first, second)
]

NEW_CLAIMS = [(State.IN_PROGRESS, Event.TAKE_OVER), (State.RETRYABLE, Event.RECLAIM)]
NEW = [event for _, event in NEW_CLAIMS]

# What may happen to a record in progress whose lease has lapsed, and what others may then try who have seen it so.
BEFORE = [event for event in Event if (State.IN_PROGRESS, event) in TABLE]
AFTER = [event for event in Event if GUARDS[event] not in (Guard.ABSENT, Guard.LIFETIME_OVER)]


class Races(Cases):
    """Many at once."""

    def test_one_of_many_claims_wins(self, subject: Subject) -> None:
        """Of claims on an absent record that race, one wins, and all see it."""
        claims = [subject.claiming() for _ in range(RACERS)]
        found = subject.race(claims)
        winners = [claim for claim, one in zip(claims, found, strict=True) if one.record.token == claim.token]
        assert len(winners) == 1
        assert {one.record.token for one in found} == {winners[0].token}

    @pytest.mark.parametrize(("state", "event"), NEW_CLAIMS)
    def test_one_of_many_new_claims_wins(self, subject: Subject, state: State, event: Event) -> None:
        """Of new claims on the same record that race, one wins, and the record carries its token."""
        claim = subject.bring_to(state)
        subject.clock.advance(LEASE_MS)
        claims = [transition_of(event, claim, state) for _ in range(RACERS)]
        answers = subject.race(claims)
        assert sorted(answers) == [False] * (RACERS - 1) + [True]
        record = subject.record()
        assert record is not None
        assert record.token == _token(claims[answers.index(True)])
        assert record.attempt == 2

    @pytest.mark.parametrize(("state", "event"), ONCE)
    def test_what_happens_once_happens_once(self, subject: Subject, state: State, event: Event) -> None:
        """The same transition many times at once takes effect once, and leads to where the table says."""
        claim = subject.bring_to(state)
        subject.clock.advance(WAIT_MS[GUARDS[event]])
        transitions = [transition_of(event, claim, state) for _ in range(RACERS)]
        answers = subject.race(transitions)
        assert sum(map(took_effect, transitions, answers)) == 1
        assert subject.state() is TABLE[state, event]

    @pytest.mark.parametrize(("state", "first", "second"), RIVALS)
    def test_rivals_end_in_some_order(self, subject: Subject, state: State, first: Event, second: Event) -> None:
        """Two kinds of transitions that race end as if all had come one after the other, in some order."""
        claim = subject.bring_to(state)
        subject.clock.advance(max(WAIT_MS[GUARDS[first]], WAIT_MS[GUARDS[second]]))
        events = [first, second] * (RACERS // 2)
        answers = subject.race([transition_of(event, claim, state) for event in events])
        won = [event for event, answer in zip(events, answers, strict=True) if answer]
        assert won
        assert len(won) == len(set(won))
        assert subject.state() in _ends(state, won)

    def test_claims_on_many_records(self, subject: Subject) -> None:
        """Claims on different records that race all win."""
        claims = [
            ClaimIfAbsent(secrets.token_bytes(32), token(), FINGERPRINT, LEASE_MS, KEEP_MS) for _ in range(RACERS)
        ]
        found = subject.race(claims)
        assert [one.record.token for one in found] == [claim.token for claim in claims]


class TwoConnections(Cases):
    """Two store objects on the same records, as of two processes."""

    @pytest.mark.parametrize(("state", "event"), TABLE)
    def test_the_other_sees_every_move(self, subject: Subject, state: State | None, event: Event) -> None:
        """What one store answered, the other knows, in every part, although it had read what was before."""
        other = subject.another_store()
        claim = subject.bring_to(state)
        subject.clock.advance(WAIT_MS[GUARDS[event]])
        with subject.by(other):
            subject.found()
        assert subject.happen(event, claim)
        after = subject.found()
        with subject.by(other):
            assert subject.found() == after
        assert (after and after.record.state) is TABLE[state, event]

    @pytest.mark.parametrize("second", AFTER)
    @pytest.mark.parametrize("first", BEFORE)
    def test_a_view_that_is_old_decides_nothing(self, subject: Subject, first: Event, second: Event) -> None:
        """One store acts on a lapsed record that it saw before the other did: the record decides, not what was seen."""
        other = subject.another_store()
        claim = subject.claim()
        subject.clock.advance(LEASE_MS)
        with subject.by(other):
            seen = subject.record()
        assert seen is not None
        assert subject.happen(first, claim)
        before = subject.record()
        with subject.by(other):
            transition = transition_of(second, Claim(subject.record_id, seen.token, seen.attempt), seen.state)
            happened = took_effect(transition, subject.do(transition))
        assert happened is _may_follow(first, second)
        if happened:
            assert subject.state() is TABLE[before.state if before else None, second]
        else:
            assert subject.record() == before

    @pytest.mark.parametrize(("state", "event"), ONCE)
    def test_once_over_all_connections(self, subject: Subject, state: State, event: Event) -> None:
        """The same transition many times at once, from four store objects, takes effect once."""
        others = [subject.another_store() for _ in range(3)]
        claim = subject.bring_to(state)
        subject.clock.advance(WAIT_MS[GUARDS[event]])
        transitions = [transition_of(event, claim, state) for _ in range(RACERS)]
        answers = subject.race(transitions, beside=others)
        assert sum(map(took_effect, transitions, answers)) == 1
        assert subject.state() is TABLE[state, event]

    def test_one_claim_over_all_connections(self, subject: Subject) -> None:
        """Of claims on an absent record from four store objects, one wins, and all see it."""
        others = [subject.another_store() for _ in range(3)]
        claims = [subject.claiming() for _ in range(RACERS)]
        found = subject.race(claims, beside=others)
        assert len({one.record.token for one in found}) == 1
        assert sum(map(took_effect, claims, found)) == 1

    def test_both_agree_on_the_secret(self, subject: Subject) -> None:
        """A secret that one store made is the other's."""
        assert subject.another_store().open() == subject.store.open()

    def test_one_that_closes_leaves_the_other_be(self, subject: Subject) -> None:
        """Closing one store object closes no other."""
        subject.another_store().close()
        claim = subject.claim()
        assert subject.happen(Event.COMPLETE, claim)


def _ends(state: State, won: list[Event]) -> set[State | None]:
    """Where a record may be after these events, in any order in which each of them may happen."""
    ends: set[State | None] = set()
    for order in permutations(won):
        reached: State | None = state
        for number, event in enumerate(order):
            # What came first has moved the dates or the token: after a new claim comes nobody, else only an owner.
            # Only an exchanged response has moved neither.
            owned = GUARDS[event] is Guard.HELD and order[number - 1] not in NEW
            follows = number == 0 or owned or order[number - 1] is Event.RESEAL
            if (reached, event) not in TABLE or not follows:
                break
            reached = TABLE[reached, event]
        else:
            ends.add(reached)
    return ends


def _may_follow(first: Event, second: Event) -> bool:
    """May the second happen to a record in progress after the first did, by the token that it had before?"""
    if first is Event.TAKE_OVER or (TABLE[State.IN_PROGRESS, first], second) not in TABLE:
        return False
    if GUARDS[second] is Guard.LAPSED:  # it is in progress still, renewed perhaps
        return first is not Event.RENEW
    if GUARDS[second] is Guard.UNCHANGED:  # in progress was what was seen
        return False
    return GUARDS[second] is not Guard.FORGETTABLE  # which it is not for long


def _token(transition: Transition[Any]) -> bytes:
    assert isinstance(transition, (ClaimIfAbsent, ClaimIfRetryable, TakeOverIfLapsed))
    return transition.token
