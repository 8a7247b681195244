"""Cases about doubt: replies that are lost after the transition was applied, and engines that fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

from retrysafe.errors import StoreError, StoreUnavailable
from retrysafe.model import State
from retrysafe.protocol.effects import Claiming, Transition
from retrysafe.protocol.states import GUARDS, TABLE, Event
from retrysafe.protocol.transitions import ClaimIfAbsent, ClaimIfRetryable, ReleaseIfHeld, TakeOverIfLapsed
from retrysafe.stores.contract import Pending, Store
from retrysafe.testing.subject import (
    LEASE_MS,
    REPEATABLE,
    RESPONSE,
    WAIT_MS,
    Cases,
    Subject,
    took_effect,
    transition_of,
)

T = TypeVar("T")

MakeFailing = Callable[[Path], AbstractContextManager[None]]
"""Makes the engine under the stores of a folder fail, until it ends."""

MOVES = list(TABLE)
CLAIMS = [(before, event) for before, event in TABLE if event in (Event.CLAIM, Event.TAKE_OVER, Event.RECLAIM)]


class LosesReplies:
    """A store whose every transition is applied, and whose answer never arrives.

    Args:
        inner: the store that applies them.
    """

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self.name = f"{inner.name}, losing replies"

    def open(self, secret: bytes | None = None) -> bytes:
        """As the inner store."""
        return self._inner.open(secret)

    def perform(self, transition: Transition[T]) -> T:
        """Apply it, and say that nobody knows."""
        self._inner.perform(transition)
        raise StoreUnavailable

    def submit(self, transition: Transition[T]) -> asyncio.Future[T]:
        """Apply it, and say that nobody knows."""
        lost: Pending[T] = Pending(loop=asyncio.get_running_loop())

        def lose(answer: asyncio.Future[T]) -> None:
            lost.set_exception(answer.exception() or StoreUnavailable())

        self._inner.submit(transition).add_done_callback(lose)
        return lost

    def close(self) -> None:
        """As the inner store."""
        self._inner.close()


class LostReplies(Cases):
    """What was applied and not answered is found by whoever asks again."""

    @pytest.mark.parametrize(("state", "event"), MOVES)
    def test_repeated_after_a_lost_reply(self, subject: Subject, state: State | None, event: Event) -> None:
        """A transition whose reply was lost was applied once: the same one again changes nothing, and can be read."""
        claim = subject.bring_to(state)
        subject.clock.advance(WAIT_MS[GUARDS[event]])
        transition = transition_of(event, claim, state)
        _lose(subject, transition)
        after = subject.record()
        assert (after and after.state) is TABLE[state, event]
        repeated = subject.do(transition)
        assert took_effect(transition, repeated) is (event in (Event.CLAIM, *REPEATABLE))
        assert subject.record() == after

    @pytest.mark.parametrize(("state", "event"), CLAIMS)
    def test_a_claim_knows_itself(self, subject: Subject, state: State | None, event: Event) -> None:
        """A claim whose reply was lost holds: the record has its token, its attempt is counted once, it can settle."""
        claim = subject.bring_to(state)
        subject.clock.advance(LEASE_MS)
        claiming = transition_of(event, claim, state)
        assert isinstance(claiming, (ClaimIfAbsent, ClaimIfRetryable, TakeOverIfLapsed))
        for _ in range(2):
            _lose(subject, claiming)
        record = subject.record()
        assert record is not None
        assert record.token == claiming.token
        assert record.attempt == (1 if state is None else 2)
        assert record.claimed_at_ms == subject.clock()

    @pytest.mark.parametrize(("state", "event"), CLAIMS)
    def test_a_claim_is_taken_back(self, subject: Subject, state: State | None, event: Event) -> None:
        """A claim whose reply was lost can be undone, once: what was new is gone, what has a history is released."""
        claim = subject.bring_to(state)
        subject.clock.advance(LEASE_MS)
        claiming = transition_of(event, claim, state)
        assert isinstance(claiming, Claiming)
        _lose(subject, claiming)
        undoing = claiming.undo()
        assert subject.do(undoing)
        assert not subject.do(undoing)
        assert subject.state() is (State.RETRYABLE if isinstance(undoing, ReleaseIfHeld) else None)

    def test_an_outcome_is_kept_once(self, subject: Subject) -> None:
        """An owner that completes again after a lost reply finds its own token and its own response, of then."""
        claim = subject.claim()
        _lose(subject, transition_of(Event.COMPLETE, claim, None))
        settled_ms = subject.clock()
        subject.clock.advance(LEASE_MS)
        assert not subject.happen(Event.COMPLETE, claim)
        record = subject.record()
        assert record is not None
        assert (record.token, record.response, record.settled_at_ms) == (claim.token, RESPONSE, settled_ms)


class EngineErrors(Cases):
    """What a store says and does while its engine fails."""

    failing: MakeFailing

    @pytest.mark.parametrize(("state", "event"), MOVES)
    def test_a_failure_is_said(self, subject: Subject, tmp_path: Path, state: State | None, event: Event) -> None:
        """While the engine fails, a transition says so; it was applied whole or not at all, and later it works."""
        claim = subject.bring_to(state)
        subject.clock.advance(WAIT_MS[GUARDS[event]])
        before = subject.record()
        transition = transition_of(event, claim, state)
        with self.failing(tmp_path), pytest.raises(StoreError):
            subject.do(transition)
        if subject.record() == before:
            assert took_effect(transition, subject.do(transition))
        assert subject.state() is TABLE[state, event]

    def test_a_read_does_not_guess(self, subject: Subject, tmp_path: Path) -> None:
        """While the engine fails, a read has the truth or an error: no answer is not the same as no record."""
        subject.claim()
        before = subject.found()
        with self.failing(tmp_path), suppress(StoreError):
            assert subject.found() == before
        assert subject.found() == before

    def test_a_failure_says_nothing_of_the_record(self, subject: Subject, tmp_path: Path) -> None:
        """What a failure says is for logs: no id, no token and no response is in it."""
        claim = subject.claim()
        with self.failing(tmp_path), pytest.raises(StoreError) as failed:
            subject.happen(Event.COMPLETE, claim)
        for secret in (claim.record_id, claim.token, RESPONSE):
            assert secret.hex() not in str(failed.value)
            assert repr(secret)[2:-1] not in str(failed.value)

    def test_everybody_hears_of_a_failure(self, subject: Subject, tmp_path: Path) -> None:
        """Of many that wait while the engine fails, each gets an error of its own, and none waits for ever."""
        heard = []
        with self.failing(tmp_path):
            for _ in range(3):
                with pytest.raises(StoreError) as failed:
                    subject.race([subject.claiming() for _ in range(8)])
                heard.append(failed.value)
        assert len({id(error) for error in heard}) == len(heard)
        assert subject.do(subject.claiming())


def _lose(subject: Subject, transition: Transition[Any]) -> None:
    """Do it, and never hear what came of it."""
    with subject.by(LosesReplies(subject.store)), pytest.raises(StoreUnavailable):
        subject.do(transition)
