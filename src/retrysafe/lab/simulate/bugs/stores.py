"""Stores that are wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from retrysafe.model import Found, Record, State
from retrysafe.protocol import transitions
from retrysafe.protocol.effects import Transition
from retrysafe.protocol.states import TABLE, Event, target
from retrysafe.stores.memory import MemoryStore, _rewritten, allowed
from retrysafe.value import value


class Loose(MemoryStore):
    """The memory store, with the question whether something may happen within reach."""

    def may(self, record: Record, event: Event, token: bytes) -> bool:
        """May this happen now?"""
        return allowed(record, event, token, self._now_ms)

    def _move(self, event: Event, record_id: bytes, seen_token: bytes, **written: Any) -> bool:
        record = self._records.get(record_id)
        if record is None or not self.may(record, event, seen_token):
            return False
        after = TABLE.get((record.state, event), target(event))
        if after is None:
            del self._records[record_id]
            self._drop_extras(record_id)
        else:
            self._records[record_id] = _rewritten(record, after, written)
        return True


def unfenced(*events: Event) -> type[Loose]:
    """A store to which any token will do for these."""

    class Unfenced(Loose):
        def may(self, record: Record, event: Event, token: bytes) -> bool:
            return super().may(record, event, record.token if event in events else token)

    return Unfenced


class TakesOverWithoutCompare(Loose):
    """A takeover looks at the state alone."""

    def may(self, record: Record, event: Event, token: bytes) -> bool:
        is_takeover = event is Event.TAKE_OVER and record.state is State.IN_PROGRESS
        return is_takeover or super().may(record, event, token)


class ReclaimsWithoutCompare(Loose):
    """To claim again looks at nothing."""

    def may(self, record: Record, event: Event, token: bytes) -> bool:
        is_claim = event is Event.RECLAIM and record.state in (State.RETRYABLE, State.IN_PROGRESS)
        return is_claim or super().may(record, event, token)


class LapsesEarly(Loose):
    """A lease is over two seconds before its end."""

    def may(self, record: Record, event: Event, token: bytes) -> bool:
        return allowed(record, event, token, self._now_ms + 2_000)

    def _claim(self, claim: transitions.ClaimIfAbsent) -> Found:
        found = super()._claim(claim)
        return Found(found.record, found.now_ms + 2_000)


class ReapsTheLiving(MemoryStore):
    """The reaper goes by age alone."""

    def _purge(self, batch_max: int) -> transitions.Purged:
        old = [name for name, record in self._records.items() if record.created_at_ms < self._now_ms - 2_000]
        for name in old[:batch_max]:
            del self._records[name]
        return transitions.Purged(0, len(old), more=False)


class ReapsTheUnknown(MemoryStore):
    """The reaper takes unknown records for finished ones."""

    def _purge(self, batch_max: int) -> transitions.Purged:
        unknown = [name for name, record in self._records.items() if record.state is State.UNKNOWN]
        for name in unknown:
            del self._records[name]
        return super()._purge(batch_max)


class VanishesWithItsLease(MemoryStore):
    """A claim is a key with an expiry: when its lease is over there is nothing."""

    def _claim(self, claim: transitions.ClaimIfAbsent) -> Found:
        record = self._records.get(claim.record_id)
        if record is not None and record.state is State.IN_PROGRESS and record.lease_until_ms <= self._now_ms:
            del self._records[claim.record_id]
        return super()._claim(claim)


class RetriesUnknown(Loose):
    """Unknown is taken for retryable."""

    def may(self, record: Record, event: Event, token: bytes) -> bool:
        is_claim = event is Event.RECLAIM and record.state is State.UNKNOWN and record.token == token
        return is_claim or super().may(record, event, token)

    def _claim(self, claim: transitions.ClaimIfAbsent) -> Found:
        found = super()._claim(claim)
        is_unknown = found.record.state is State.UNKNOWN
        return Found(_rewritten(found.record, State.RETRYABLE, {}), found.now_ms) if is_unknown else found


class AbandonsTheCompleted(Loose):
    """Giving up on a lapsed claim does not look at the state."""

    def may(self, record: Record, event: Event, token: bytes) -> bool:
        is_lapsed = record.token == token and record.lease_until_ms <= self._now_ms
        is_done = event is Event.ABANDON and record.state is State.COMPLETED
        return (is_done and is_lapsed) or super().may(record, event, token)


class ForgetsAnything(Loose):
    """Who found a record that was over deletes whatever is there now."""

    def may(self, record: Record, event: Event, token: bytes) -> bool:
        return event is Event.FORGET or super().may(record, event, token)


@value
class Blind(transitions.ClaimIfAbsent):
    """A claim that was checked before, and writes."""


class OverwritesClaims(MemoryStore):
    """The second half of check-then-act: it writes what was absent when it was looked at."""

    def _claim(self, claim: transitions.ClaimIfAbsent) -> Found:
        if isinstance(claim, Blind):
            self._records.pop(claim.record_id, None)
        return super()._claim(claim)


class SyncsLazily(MemoryStore):
    """Answers before it is durable: what was written in its last second is gone when it starts anew."""

    def __init__(self, clock: Callable[[], int]) -> None:
        super().__init__(clock)
        self._synced: list[tuple[int, dict[bytes, Record]]] = [(0, {})]

    def perform(self, transition: Transition[Any]) -> Any:
        answer = super().perform(transition)
        self._synced.append((self._now_ms, dict(self._records)))
        return answer

    def open(self, secret: bytes | None = None) -> bytes:
        durable_ms = self._clock() - 10_000
        self._records = dict([records for at_ms, records in self._synced if at_ms <= durable_ms][-1])
        return super().open(secret)


class ForgetsTombstones(MemoryStore):
    """When the lifetime is over there is nothing left."""

    def _settle(self, event: Event, record_id: bytes, token: bytes, forget_at_ms: int, **written: Any) -> bool:
        return super()._settle(event, record_id, token, written.get("expires_at_ms", forget_at_ms), **written)


class BelievesTheClaimant(Loose):
    """The store does not look at its clock at all."""

    def may(self, record: Record, event: Event, token: bytes) -> bool:
        by_word = event in (Event.TAKE_OVER, Event.ABANDON) and record.state is State.IN_PROGRESS
        return (by_word and record.token == token) or super().may(record, event, token)
