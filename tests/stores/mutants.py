"""Stores in memory that are wrong, each in one way. The suite for stores has to notice every one."""

from __future__ import annotations

import secrets
from dataclasses import replace

from retrysafe.protocol.effects import Purged, ReplaceResponseIfSame
from retrysafe.protocol.states import TABLE, Event, target
from retrysafe.stores.memory import MemoryStore, allowed
from retrysafe.testing import store_contract


class Mutant(MemoryStore):
    """The memory store, with the parts in which a mutant may differ within reach."""

    def may(self, record, event, token):
        return allowed(record, event, token, self._now_ms)

    def writes(self, record, event, written):
        return written

    def _move(self, event, record_id, seen_token, **written):
        record = self._records.get(record_id)
        if record is None or not self.may(record, event, seen_token):
            return False
        after = target(event)
        if after is None:
            del self._records[record_id]
        else:
            self._records[record_id] = replace(record, state=after, **self.writes(record, event, written))
        return True


class IgnoresTokens(Mutant):
    """Any token will do."""

    def may(self, record, event, token):
        return super().may(record, event, record.token)


class IgnoresStates(Mutant):
    """A token is enough, whatever the state."""

    def may(self, record, event, token):
        return super().may(record, event, token) or (
            event is Event.COMPLETE and record.token == token and (record.state, event) not in TABLE
        )


class LapsesEarly(Mutant):
    """A lease ends one millisecond before its end."""

    def may(self, record, event, token):
        return allowed(replace(record, lease_until_ms=record.lease_until_ms - 1), event, token, self._now_ms)


class LapsesLate(Mutant):
    """A lease still holds at its end."""

    def may(self, record, event, token):
        return allowed(replace(record, lease_until_ms=record.lease_until_ms + 1), event, token, self._now_ms)


class ExpiresEarly(Mutant):
    """A lifetime ends one millisecond before its end."""

    def may(self, record, event, token):
        early = replace(record, expires_at_ms=record.expires_at_ms and record.expires_at_ms - 1)
        return allowed(early, event, token, self._now_ms)

    def _due(self):
        return iter(self._records.items())


class ForgetsEarly(Mutant):
    """A record is forgotten one millisecond before its time."""

    def may(self, record, event, token):
        return allowed(replace(record, forget_at_ms=record.forget_at_ms - 1), event, token, self._now_ms)


class PunishesLateOwners(Mutant):
    """An owner whose lease has lapsed can no longer complete."""

    def may(self, record, event, token):
        late = event is Event.COMPLETE and record.lease_until_ms <= self._now_ms
        return not late and super().may(record, event, token)


class LifetimeFromClaim(Mutant):
    """The lifetime counts from the claim, not from completion."""

    def writes(self, record, event, written):
        if event is Event.COMPLETE:
            written["expires_at_ms"] -= self._now_ms - record.claimed_at_ms
        return written


class CountsNoAttempts(Mutant):
    """Every attempt is the first."""

    def writes(self, record, event, written):
        return written | {"attempt": 1}


class KeepsTheOldToken(Mutant):
    """Whoever takes over does not get the record."""

    def writes(self, record, event, written):
        return written | {"token": record.token}


class ForgetsRenewals(Mutant):
    """A renewal is acknowledged and not kept."""

    def writes(self, record, event, written):
        return {} if event is Event.RENEW else written


class CutsResponses(Mutant):
    """Only the first mebibyte of a response is kept."""

    def writes(self, record, event, written):
        return written | {"response": written["response"][: 1 << 20]} if written.get("response") else written


class KeepsExpiredResponses(Mutant):
    """A tombstone keeps its response."""

    def writes(self, record, event, written):
        return {} if event is Event.EXPIRE else written


class ClaimExtendsTheLease(Mutant):
    """A claim that is repeated renews."""

    def _claim(self, claim):
        found = super()._claim(claim)
        if found.record.token == claim.token:
            longer = replace(found.record, lease_until_ms=self._now_ms + claim.lease_ms)
            self._records[claim.record_id] = longer
            return replace(found, record=longer)
        return found


class ClaimOverwrites(Mutant):
    """A claim takes a record that is settled."""

    def _claim(self, claim):
        record = self._records.get(claim.record_id)
        if record is not None and record.settled_at_ms is not None:
            del self._records[claim.record_id]
        return super()._claim(claim)


class ReplacesWhateverIsThere(Mutant):
    """A response is exchanged by whoever comes, also by one who saw other bytes."""

    def _apply(self, transition):
        if isinstance(transition, ReplaceResponseIfSame):
            return self._move(Event.RESEAL, transition.record_id, transition.seen_token, response=transition.response)
        return super()._apply(transition)


class SkipsAPage(Mutant):
    """A page begins one record too late."""

    def _list_responses(self, wish):
        page = super()._list_responses(wish)
        return replace(page, responses=page.responses[1:]) if wish.after else page


class CountsOnlyTheLast(Mutant):
    """A batch of counts replaces the one before."""

    def _count_answers(self, counts):
        self._answers.clear()
        return super()._count_answers(counts)


class RemembersEveryDay(Mutant):
    """Old counts are never forgotten."""

    def _count_answers(self, counts):
        before = dict(self._answers)
        super()._count_answers(counts)
        self._answers = before | self._answers
        return True


class ForgetsTheRoute(Mutant):
    """A new claim takes the route along."""

    def writes(self, record, event, written):
        return written | {"route": ""} if event is Event.RECLAIM else written


class PurgesWhatIsInProgress(Mutant):
    """An abandoned record vanishes without ever having been unknown."""

    def _purge(self, batch_max):
        for record_id, record in list(self._due()):
            if record.settled_at_ms is None:
                del self._records[record_id]
        return super()._purge(batch_max)


class PurgesEverythingAtOnce(Mutant):
    """The size of a batch is not obeyed."""

    def _purge(self, batch_max):
        return super()._purge(1_000_000)


class NeverHasMore(Mutant):
    """A purge never says that there is more."""

    def _purge(self, batch_max):
        purged = super()._purge(batch_max)
        return Purged(purged.expired, purged.forgotten, more=False)


class FollowsTheClock(Mutant):
    """The store's clock steps back with the host's."""

    def perform(self, transition):
        self._now_ms = 0
        return super().perform(transition)


class MakesNewSecrets(Mutant):
    """Each time it is opened it has another secret."""

    def open(self, secret=None):
        super().open(secret)
        return secret or secrets.token_bytes(32)


class TakesAnySecret(Mutant):
    """Whatever secret it is given is right."""

    def open(self, secret=None):
        self._secret_check = self._secret_check if secret is None else None
        return super().open(secret)


class StaysOpen(Mutant):
    """It goes on after it was closed."""

    def close(self):
        self._closed = False


CAUGHT_BY: dict[type[Mutant], str] = {
    IgnoresTokens: "test_other_token_is_refused",
    IgnoresStates: "test_second_completion_keeps_the_first",
    LapsesEarly: "test_lease_holds_to_the_millisecond",
    LapsesLate: "test_lease_holds_to_the_millisecond",
    ExpiresEarly: "test_lifetime_holds_to_the_millisecond",
    ForgetsEarly: "test_forgotten_to_the_millisecond",
    PunishesLateOwners: "test_lapsed_lease_stays_with_its_owner",
    LifetimeFromClaim: "test_complete",
    CountsNoAttempts: "test_attempts_are_counted",
    KeepsTheOldToken: "test_take_over",
    ForgetsRenewals: "test_renewal",
    CutsResponses: "test_response_is_kept_to_the_byte",
    KeepsExpiredResponses: "test_lifetime_holds_to_the_millisecond",
    ClaimExtendsTheLease: "test_repeated_claim_recognises_itself",
    ClaimOverwrites: "test_repeated_claim_recognises_itself",
    ReplacesWhateverIsThere: "test_response_that_is_another_is_left",
    SkipsAPage: "test_every_response_is_on_a_page",
    CountsOnlyTheLast: "test_counts_add_up",
    RemembersEveryDay: "test_days_pass",
    ForgetsTheRoute: "test_route_is_kept",
    PurgesWhatIsInProgress: "test_abandoned_record_does_not_vanish",
    PurgesEverythingAtOnce: "test_expiring_goes_in_batches",
    NeverHasMore: "test_expiring_goes_in_batches",
    FollowsTheClock: "test_clock_never_goes_back",
    MakesNewSecrets: "test_store_keeps_the_secret",
    TakesAnySecret: "test_other_secret_is_refused",
    StaysOpen: "test_closed_store_refuses",
}
"""Each mutant, and the case that is there for it."""

TestMutant = store_contract(lambda clock, folder: Mutant(clock), durable=False)


def _suite(mutant: type[Mutant]) -> type:
    return store_contract(lambda clock, folder: mutant(clock), durable=False)


globals().update({f"Test{mutant.__name__}": _suite(mutant) for mutant in CAUGHT_BY})
