"""Stores in memory that are wrong, each in one way. The suite for stores has to notice every one."""

from __future__ import annotations

import secrets
import threading
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from retrysafe.errors import StoreError, StoreUnavailable
from retrysafe.model import State
from retrysafe.protocol.states import TABLE, Event, target
from retrysafe.protocol.transitions import (
    AddHistory,
    ClaimIfAbsent,
    ForgetIfSeen,
    KeepJournalIfHeld,
    Purge,
    Purged,
    Read,
    ReplaceResponseIfSame,
)
from retrysafe.stores.memory import MemoryStore, allowed
from retrysafe.testing import store_contract
from tests.stores.ways import mainly

COLOURS = mainly("blocking")


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
            self._drop_extras(record_id)
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


class SettlesWhatIsUnknown(Mutant):
    """Whoever comes settles an unknown."""

    def may(self, record, event, token):
        return super().may(record, event, record.token if record.state is State.UNKNOWN else token)


class HonoursFormerTokens(Mutant):
    """A token that has once held a record holds it, and whatever record follows it."""

    def __init__(self, clock):
        super().__init__(clock)
        self.former = defaultdict(set)

    def perform(self, transition):
        token = getattr(transition, "token", None)
        if token is not None:
            self.former[transition.record_id].add(token)
        return super().perform(transition)

    def _move(self, event, record_id, seen_token, **written):
        record = self._records.get(record_id)
        if record is not None and seen_token in self.former[record_id]:
            seen_token = record.token
        return super()._move(event, record_id, seen_token, **written)


class CountsInAByte(Mutant):
    """No attempt has a number over 127."""

    def writes(self, record, event, written):
        return written | {"attempt": min(127, written.get("attempt", record.attempt))}


class TakesResponsesForText(Mutant):
    """A response is kept as text."""

    def writes(self, record, event, written):
        response = written.get("response")
        return written | {"response": response.decode("utf-8", "replace").encode()} if response else written


class TakesIdsForText(Mutant):
    """An id that is no text is refused."""

    def perform(self, transition):
        if record_id := getattr(transition, "record_id", b""):
            try:
                record_id.decode("utf-8")
            except UnicodeDecodeError as error:
                raise StoreError from error
        return super().perform(transition)


class FoldsIds(Mutant):
    """Ids are compared without their case, and blanks at their end."""

    def perform(self, transition):
        if record_id := getattr(transition, "record_id", b""):
            transition = replace(transition, record_id=record_id.lower().rstrip())
        elif claim := getattr(transition, "claim", None):
            folded = replace(claim, record_id=claim.record_id.lower().rstrip())
            transition = replace(transition, claim=folded)
        return super().perform(transition)


class FoldsTokens(Mutant):
    """Tokens are compared without their case."""

    def may(self, record, event, token):
        alike = token.lower() == record.token.lower()
        return super().may(record, event, record.token if alike else token)


class NoLeaseUnderASecond(Mutant):
    """A lease holds for a second at least."""

    def perform(self, transition):
        if getattr(transition, "lease_ms", 1_000) < 1_000:
            transition = replace(transition, lease_ms=1_000)
        return super().perform(transition)


class CountsInThirtyTwoBits(Mutant):
    """No duration is longer than 32 bits of milliseconds, which are seven weeks."""

    def perform(self, transition):
        for name in ("lease_ms", "lifetime_ms"):
            if hasattr(transition, name):
                transition = replace(transition, **{name: min(getattr(transition, name), 1 << 32)})
        return super().perform(transition)


class OnlyRenewsForLonger(Mutant):
    """A renewal never shortens a lease."""

    def writes(self, record, event, written):
        longer = max(record.lease_until_ms, written.get("lease_until_ms", 0))
        return written | {"lease_until_ms": longer} if event is Event.RENEW else written


class KeepsForAWhile(Mutant):
    """What is to be kept for no time is kept for a second."""

    def perform(self, transition):
        for name in ("lifetime_ms", "forget_after_ms"):
            if getattr(transition, name, None) == 0:
                transition = replace(transition, **{name: 1_000})
        return super().perform(transition)


class DatesByTheHost(Mutant):
    """It judges by a clock that never goes back, and dates by one that does."""

    def writes(self, record, event, written):
        back_ms = self._now_ms - self._clock()
        return {name: value - back_ms if value and name.endswith("_ms") else value for name, value in written.items()}


class GoesOnFromTheFloor(Mutant):
    """After a step back its clock goes on as if the step had not been."""

    def __init__(self, clock):
        super().__init__(clock)
        self.last_ms = clock()

    def perform(self, transition):
        now_ms = self._clock()
        self._now_ms = max(self._now_ms, self.last_ms) + max(0, now_ms - self.last_ms)
        self.last_ms = now_ms
        return super().perform(transition)


class DisbelievesSteps(Mutant):
    """A clock that has gone on by more than half an hour at once is not believed."""

    def perform(self, transition):
        host, believed_ms = self._clock, self._now_ms
        if believed_ms and believed_ms + 1_800_000 < host() < believed_ms + 7_200_000:
            self._clock = lambda: believed_ms
        try:
            return super().perform(transition)
        finally:
            self._clock = host


class ChecksThenWrites(Mutant):
    """Between the look and the write there is a moment."""

    def perform(self, transition):
        self._now_ms = max(self._now_ms, self._clock())
        return self._apply(transition)

    def may(self, record, event, token):
        may = super().may(record, event, token)
        threading.Event().wait(0.0005)
        return may


class CountsRepeatedClaims(Mutant):
    """A take-over that is repeated after a lost reply is another attempt."""

    def _claim_again(self, event, claim):
        record = self._records.get(claim.record_id)
        if record is not None and record.token == claim.token:
            self._records[claim.record_id] = replace(record, attempt=record.attempt + 1)
            return True
        return super()._claim_again(event, claim)


class WantsTheAttempt(Mutant):
    """A claim is its token and its number, so that nobody can take back what was not answered."""

    def perform(self, transition):
        if claim := getattr(transition, "claim", None):
            record = self._records.get(claim.record_id)
            if record is not None and record.attempt != claim.attempt:
                return False
        return super().perform(transition)


class KeepsTheJournal(Mutant):
    """A journal stays when the record is completed or deleted."""

    def _drop_extras(self, record_id):
        self._requests.pop(record_id, None)


class ForgetsTheRequest(Mutant):
    """Whoever claims a record again finds no request and no journal."""

    def _claim_again(self, event, claim):
        self._drop_extras(claim.record_id)
        return super()._claim_again(event, claim)


class DropsTheJournal(Mutant):
    """What is released or in doubt keeps no journal."""

    def _move(self, event, record_id, seen_token, **written):
        moved = super()._move(event, record_id, seen_token, **written)
        if moved and event in (Event.RELEASE, Event.GIVE_UP, Event.ABANDON):
            self._journals.pop(record_id, None)
        return moved


class TakesAnyRequest(Mutant):
    """The request of a claim that finds a record takes the place of the one that is there."""

    def _claim(self, claim):
        found = super()._claim(claim)
        if claim.request is not None:
            self._requests[claim.record_id] = claim.request
        return found


class AppendsToTheJournal(Mutant):
    """A journal is added to the one before."""

    def _apply(self, transition):
        if isinstance(transition, KeepJournalIfHeld):
            before = self._journals.get(transition.claim.record_id, b"")
            transition = replace(transition, journal=before + transition.journal)
        return super()._apply(transition)


class TakesAnyJournal(Mutant):
    """The journal is kept also of whoever is told that it was not."""

    def _apply(self, transition):
        if isinstance(transition, KeepJournalIfHeld) and transition.claim.record_id in self._records:
            self._journals[transition.claim.record_id] = transition.journal
        return super()._apply(transition)


class SortsTheHistory(Mutant):
    """A history is in the order of its entries, and not of their additions."""

    def _details(self, record_id):
        details = super()._details(record_id)
        return replace(details, history=tuple(sorted(details.history)))


class HistoryGoesWithTheRecord(Mutant):
    """A history ends with its record."""

    def _drop_extras(self, record_id):
        super()._drop_extras(record_id)
        self._histories.pop(record_id, None)


class HistoryOnlyOfRecords(Mutant):
    """Where there is no record there is no history."""

    def _details(self, record_id):
        details = super()._details(record_id)
        return details if details.found else replace(details, history=())


class ShowsWhatIsOver(Mutant):
    """An entry is seen until somebody purges."""

    def _details(self, record_id):
        entries = tuple(entry for _, entry in self._histories.get(record_id, ()))
        return replace(super()._details(record_id), history=entries)


class PurgesWholeHistories(Mutant):
    """With one entry that is over goes the whole history."""

    def _purge(self, batch_max):
        for record_id, _ in list(self._histories_due()):
            del self._histories[record_id]
        return super()._purge(batch_max)


class LeavesOutWhatWasAdded(Mutant):
    """An addition that is the same as the last one is not made."""

    def _apply(self, transition):
        entries = self._histories.get(getattr(transition, "record_id", b""), [])
        if isinstance(transition, AddHistory) and entries and entries[-1][1] == transition.entry:
            return True
        return super()._apply(transition)


class ListsResponses(Mutant):
    """A list carries the responses."""

    def _list_records(self, wish, ids):
        page = super()._list_records(wish, ids)
        records = tuple(replace(one, record=self._records[one.record_id]) for one in page.records)
        return replace(page, records=records)


class ListsEveryRoute(Mutant):
    """A list does not look at the route."""

    def _listed(self, states, route):
        return super()._listed(states, None)


class ListsEveryState(Mutant):
    """A list does not look at the state."""

    def _listed(self, states, route):
        return super()._listed(tuple(State), route)


class SkipsARecord(Mutant):
    """A page of a list begins one record too late."""

    def _list_records(self, wish, ids):
        page = super()._list_records(wish, ids)
        return replace(page, records=page.records[1:]) if wish.after else page


class CountsPages(Mutant):
    """A page of a list begins after as many records as were on those before, whatever went meanwhile."""

    def _list_records(self, wish, ids):
        at = int.from_bytes(wish.after)
        page = super()._list_records(replace(wish, after=b"", batch_max=len(ids) + 1), ids)
        records = page.records[at : at + wish.batch_max]
        following = (at + wish.batch_max).to_bytes(8) if at + wish.batch_max < len(ids) else None
        return replace(page, records=records, next_after=following)


class AbandonedWithoutARequest(Mutant):
    """What has no request to send again counts as abandoned."""

    def _abandoned(self):
        return [one for one, record in self._records.items() if self.may(record, Event.TAKE_OVER, record.token)]


class AbandonedBeforeItsTime(Mutant):
    """What is in progress counts as abandoned while its lease runs."""

    def _abandoned(self):
        return [one for one in self._requests if self._records[one].state is State.IN_PROGRESS]


class ErasesWhateverIsThere(Mutant):
    """A record is forgotten by hand in another state than it was seen in."""

    def _apply(self, transition):
        if isinstance(transition, ForgetIfSeen):
            return self._move(Event.ERASE, transition.record_id, transition.seen_token)
        return super()._apply(transition)


class ResolvesWhatIsReleased(Mutant):
    """Somebody who looked completes a record that is no longer in doubt."""

    def _complete(self, event, record_id, *rest):
        record = self._records.get(record_id)
        if event is Event.RESOLVE and record is not None and record.state is State.RETRYABLE:
            self._records[record_id] = replace(record, state=State.UNKNOWN)
        return super()._complete(event, record_id, *rest)


class RulesOutWhatIsInProgress(Mutant):
    """Somebody who looked releases a record whose owner is at work."""

    def may(self, record, event, token):
        return super().may(record, Event.REVOKE if event is Event.RULE_OUT else event, token)


class RevokesOnlyLapsed(Mutant):
    """A claim is taken away only when its lease is over."""

    def may(self, record, event, token):
        early = event is Event.REVOKE and self._now_ms < record.lease_until_ms
        return not early and super().may(record, event, token)


class Shared(Mutant):
    """The records of one folder in this process, whichever object asks: a store with several connections."""

    folders: ClassVar[dict[Path, Shared]] = {}

    def __init__(self, clock, folder):
        super().__init__(clock)
        first = self.folders.setdefault(folder, self)
        self.first, self._records, self._lock = first, first._records, first._lock

    def open(self, secret=None):
        self._held_secret, self._secret_check = self.first._held_secret, self.first._secret_check
        used = super().open(secret)
        self.first._held_secret, self.first._secret_check = self._held_secret, self._secret_check
        return used

    def perform(self, transition):
        dated_ms = [record.settled_at_ms or record.claimed_at_ms for record in self._records.values()]
        self._now_ms = max(self._now_ms, *dated_ms, 0)
        return super().perform(transition)


class CachesReads(Shared):
    """What was read once is not read again."""

    def __init__(self, clock, folder):
        super().__init__(clock, folder)
        self.cache = {}

    def perform(self, transition):
        if not isinstance(transition, Read):
            self.cache.clear()
            return super().perform(transition)
        if transition.record_id not in self.cache:
            self.cache[transition.record_id] = super().perform(transition)
        return self.cache[transition.record_id]


class JudgesByWhatItSaw(Shared):
    """Whether a record may be moved is judged by what was read of it last."""

    def __init__(self, clock, folder):
        super().__init__(clock, folder)
        self.seen = {}

    def perform(self, transition):
        answer = super().perform(transition)
        if isinstance(transition, Read) and answer is not None:
            self.seen[transition.record_id] = answer.record
        return answer

    def _move(self, event, record_id, seen_token, **written):
        if record_id in self.seen and record_id in self._records:
            self._records[record_id] = self.seen.pop(record_id)
        return super()._move(event, record_id, seen_token, **written)


class LocksItselfOnly(Shared):
    """Two objects write at the same time."""

    def __init__(self, clock, folder):
        super().__init__(clock, folder)
        self._lock = threading.Lock()

    def may(self, record, event, token):
        may = super().may(record, event, token)
        threading.Event().wait(0.0005)
        return may

    def _claim(self, claim):
        if claim.record_id not in self._records:
            threading.Event().wait(0.005)
            self._records.pop(claim.record_id, None)
        return super()._claim(claim)


class HasItsOwnSecret(Shared):
    """Each object has a secret of its own."""

    def open(self, secret=None):
        return MemoryStore.open(self, secret)


class ClosesForAll(Shared):
    """An object that is closed closes the rest."""

    def close(self):
        super().close()
        self.first._closed = True


class Failing(Shared):
    """An engine that can fail: then every transition says so and does nothing."""

    failing: ClassVar[set[Path]] = set()

    def __init__(self, clock, folder):
        super().__init__(clock, folder)
        self.folder = folder

    def perform(self, transition):
        if self.folder in self.failing:
            return self.fail(transition)
        return super().perform(transition)

    def fail(self, transition):
        raise StoreUnavailable

    @classmethod
    @contextmanager
    def trouble(cls, folder):
        """The engine of that folder fails."""
        cls.failing.add(folder)
        yield
        cls.failing.discard(folder)


class SaysNoWhenItFails(Failing):
    """Where it cannot write it says that it was not allowed to."""

    def fail(self, transition):
        if isinstance(transition, ClaimIfAbsent | Purge):
            raise StoreUnavailable
        return False


class WritesHalf(Failing):
    """What it could not finish stays as far as it came."""

    def fail(self, transition):
        if claim := getattr(transition, "claim", None):
            self._records[claim.record_id] = replace(self._records[claim.record_id], state=State.EXPIRED)
        raise StoreUnavailable


class SeesNothingWhenItFails(Failing):
    """Where it cannot read there is no record."""

    def fail(self, transition):
        if isinstance(transition, Read):
            return
        raise StoreUnavailable


class SaysTooMuch(Failing):
    """An error has the whole transition in it."""

    def fail(self, transition):
        raise StoreUnavailable(repr(transition))


class RaisesOneError(Failing):
    """All that fail share one exception."""

    error: ClassVar[StoreError] = StoreUnavailable()

    def fail(self, transition):
        raise self.error


CAUGHT_BY: dict[type[Mutant], tuple[str, ...]] = {
    IgnoresTokens: ("test_other_token_is_refused",),
    IgnoresStates: ("test_second_completion_keeps_the_first", "test_an_outcome_is_kept_once"),
    LapsesEarly: ("test_lease_holds_to_the_millisecond",),
    LapsesLate: ("test_lease_holds_to_the_millisecond",),
    ExpiresEarly: ("test_lifetime_holds_to_the_millisecond",),
    ForgetsEarly: ("test_forgotten_to_the_millisecond",),
    PunishesLateOwners: ("test_lapsed_lease_stays_with_its_owner",),
    LifetimeFromClaim: ("test_complete",),
    CountsNoAttempts: ("test_attempts_are_counted",),
    KeepsTheOldToken: ("test_take_over",),
    ForgetsRenewals: ("test_renewal",),
    CutsResponses: ("test_response_is_kept_to_the_byte",),
    KeepsExpiredResponses: ("test_lifetime_holds_to_the_millisecond",),
    ClaimExtendsTheLease: ("test_repeated_claim_recognises_itself",),
    ClaimOverwrites: ("test_repeated_claim_recognises_itself",),
    ReplacesWhateverIsThere: ("test_response_that_is_another_is_left",),
    SkipsAPage: ("test_every_response_is_on_a_page",),
    CountsOnlyTheLast: ("test_counts_add_up",),
    RemembersEveryDay: ("test_days_pass",),
    ForgetsTheRoute: ("test_route_is_kept",),
    PurgesWhatIsInProgress: ("test_abandoned_record_does_not_vanish",),
    PurgesEverythingAtOnce: ("test_expiring_goes_in_batches",),
    NeverHasMore: ("test_expiring_goes_in_batches",),
    FollowsTheClock: ("test_clock_never_goes_back", "test_time_never_goes_back_for_a_reader"),
    MakesNewSecrets: ("test_store_keeps_the_secret",),
    TakesAnySecret: ("test_other_secret_is_refused",),
    StaysOpen: ("test_closed_store_refuses",),
    SettlesWhatIsUnknown: ("test_stale_owner_is_refused_whatever_the_next_did",),
    HonoursFormerTokens: ("test_old_view_is_refused", "test_owner_of_a_record_that_is_gone_is_refused"),
    CountsInAByte: ("test_many_attempts",),
    TakesResponsesForText: ("test_bytes_are_kept_as_they_are",),
    TakesIdsForText: ("test_ids_are_bytes",),
    FoldsIds: ("test_ids_that_are_alike_are_two",),
    FoldsTokens: ("test_tokens_that_are_alike_are_two",),
    NoLeaseUnderASecond: ("test_lease_of_nothing",),
    CountsInThirtyTwoBits: ("test_lease_of_a_century", "test_lifetime_of_a_century"),
    OnlyRenewsForLonger: ("test_renewal_may_shorten",),
    KeepsForAWhile: ("test_lifetime_of_nothing", "test_kept_for_nothing"),
    DatesByTheHost: ("test_nothing_is_dated_back",),
    GoesOnFromTheFloor: (
        "test_a_step_back_ends_no_lease_and_adds_to_it",
        "test_a_step_forward_and_back_shortens_no_new_lease",
        "test_a_step_back_expires_nothing",
    ),
    DisbelievesSteps: ("test_a_step_forward_is_time",),
    ChecksThenWrites: ("test_what_happens_once_happens_once", "test_rivals_end_in_some_order"),
    CountsRepeatedClaims: ("test_repeated_after_a_lost_reply", "test_a_claim_knows_itself"),
    WantsTheAttempt: ("test_a_claim_is_taken_back",),
    CachesReads: ("test_the_other_sees_every_move",),
    JudgesByWhatItSaw: ("test_a_view_that_is_old_decides_nothing",),
    LocksItselfOnly: ("test_once_over_all_connections", "test_one_claim_over_all_connections"),
    HasItsOwnSecret: ("test_both_agree_on_the_secret",),
    ClosesForAll: ("test_one_that_closes_leaves_the_other_be",),
    KeepsTheJournal: ("test_kept_until_it_is_finished", "test_purged_with_the_record"),
    ForgetsTheRequest: ("test_next_attempt_goes_on", "test_kept_until_it_is_finished"),
    DropsTheJournal: ("test_kept_until_it_is_finished", "test_next_attempt_goes_on"),
    TakesAnyRequest: ("test_request_of_the_first_claim_stays", "test_request_that_was_not_kept_is_not_kept_later"),
    AppendsToTheJournal: ("test_journal_is_replaced_as_a_whole",),
    TakesAnyJournal: ("test_journal_of_another_is_not_kept", "test_journal_is_of_what_is_in_progress"),
    SortsTheHistory: ("test_history_is_in_order",),
    HistoryGoesWithTheRecord: ("test_history_outlives_the_record",),
    HistoryOnlyOfRecords: ("test_history_outlives_the_record",),
    ShowsWhatIsOver: ("test_entry_is_kept_to_the_millisecond",),
    PurgesWholeHistories: ("test_history_is_purged_in_batches", "test_entry_is_kept_to_the_millisecond"),
    LeavesOutWhatWasAdded: ("test_history_is_in_order",),
    ListsResponses: ("test_records_are_listed_by_state_and_route",),
    ListsEveryRoute: ("test_records_are_listed_by_state_and_route",),
    ListsEveryState: ("test_records_are_listed_by_state_and_route",),
    SkipsARecord: ("test_every_record_is_on_a_page", "test_every_abandoned_record_is_on_a_page"),
    CountsPages: ("test_pages_are_whole_while_others_write", "test_abandoned_pages_are_whole_while_others_write"),
    AbandonedWithoutARequest: ("test_only_what_was_abandoned",),
    AbandonedBeforeItsTime: ("test_abandoned_to_the_millisecond",),
    ErasesWhateverIsThere: ("test_seen_in_another_state_is_left",),
    ResolvesWhatIsReleased: ("test_move",),
    RulesOutWhatIsInProgress: ("test_move",),
    RevokesOnlyLapsed: ("test_move",),
    SaysNoWhenItFails: ("test_a_failure_is_said",),
    WritesHalf: ("test_a_failure_is_said",),
    SeesNothingWhenItFails: ("test_a_read_does_not_guess",),
    SaysTooMuch: ("test_a_failure_says_nothing_of_the_record",),
    RaisesOneError: ("test_everybody_hears_of_a_failure",),
}
"""Each mutant, and the cases that are there for it: every one of them fails on it."""


def _suite(mutant: type[Mutant], cases: frozenset[str]) -> type:
    """The parts of the suite in which these cases are."""
    if issubclass(mutant, Shared):
        trouble = mutant.trouble if issubclass(mutant, Failing) else None
        whole = store_contract(mutant, failing=trouble, colours=COLOURS)
    else:
        whole = store_contract(lambda clock, folder: mutant(clock), durable=False, colours=COLOURS)
    parts = tuple(part for part in whole.__bases__ if not cases.isdisjoint(vars(part)))
    members = {name: member for name, member in vars(whole).items() if name in {"make", "failing", "subject"}}
    return type("Suite", parts, members)


EVERY_CASE = frozenset(case for cases in CAUGHT_BY.values() for case in cases)

TestMutant = _suite(Mutant, EVERY_CASE)
TestFailing = _suite(Failing, EVERY_CASE)  # durable, with several connections and an engine that fails; and right

globals().update({f"Test{mutant.__name__}": _suite(mutant, frozenset(cases)) for mutant, cases in CAUGHT_BY.items()})
