"""What a flow, or an operator, may ask of a store: each one atomic operation on one record, named by its condition.

`stores.contract` says what a store promises of them; the answer says whether one took effect.
"""

from __future__ import annotations

from retrysafe.errors import CallerError
from retrysafe.model import Claim, Found, Record, State
from retrysafe.protocol.effects import Claiming, Transition
from retrysafe.protocol.states import Event, target
from retrysafe.value import value

_CLAIMED = State(target(Event.CLAIM) or "")


@value
class ClaimIfAbsent(Claiming[Found]):
    """Insert a record in progress, attempt 1, if there is none; else the record as it stands.

    The answer's record carries `token` if and only if this claim holds, also when the same claim is
    repeated after a lost reply.

    Attributes:
        record_id: 32 bytes.
        token: 16 random bytes, chosen by the caller.
        fingerprint: of the request.
        lease_ms: how long the claim holds without renewal.
        forget_after_ms: how long after its lease an abandoned record is kept.
        route: the entry of the routes table that the request matched, at most 255 characters; kept for
            people who look at many records, and decides nothing.
        request: the sealed request, for whoever is to send it again when its owner is gone; None keeps none. It
            stays with the record, through whatever becomes of that, until it is completed or deleted. The request
            of a claim that finds a record is not kept.
    """

    record_id: bytes
    token: bytes
    fingerprint: bytes
    lease_ms: int
    forget_after_ms: int
    route: str = ""
    request: bytes | None = None

    def first_record(self, now_ms: int) -> Record:
        """The record that is inserted, by the time of the store."""
        lease_until_ms = now_ms + self.lease_ms
        return Record(
            state=_CLAIMED,
            token=self.token,
            attempt=1,
            fingerprint=self.fingerprint,
            created_at_ms=now_ms,
            claimed_at_ms=now_ms,
            lease_until_ms=lease_until_ms,
            settled_at_ms=None,
            expires_at_ms=None,
            forget_at_ms=lease_until_ms + self.forget_after_ms,
            response=None,
            route=self.route,
        )

    def undo(self) -> Transition[bool]:
        """Delete the record: it was made for this claim."""
        return DiscardIfHeld(Claim(self.record_id, self.token, attempt=1))


@value
class TakeOverIfLapsed(Claiming[bool]):
    """New claim on a record in progress whose token is `seen_token` and whose lease has lapsed."""

    record_id: bytes
    seen_token: bytes
    token: bytes
    lease_ms: int
    forget_after_ms: int

    def undo(self) -> Transition[bool]:
        """Release the record: it has a history that must stay."""
        return ReleaseIfHeld(Claim(self.record_id, self.token, attempt=0), self.forget_after_ms)


@value
class ClaimIfRetryable(Claiming[bool]):
    """New claim on a retryable record whose token is `seen_token`."""

    record_id: bytes
    seen_token: bytes
    token: bytes
    lease_ms: int
    forget_after_ms: int

    def undo(self) -> Transition[bool]:
        """Release the record: it has a history that must stay."""
        return ReleaseIfHeld(Claim(self.record_id, self.token, attempt=0), self.forget_after_ms)


@value
class RenewIfHeld(Transition[bool]):
    """Extend the lease of a record in progress that this claim still holds."""

    claim: Claim
    lease_ms: int
    forget_after_ms: int


@value
class KeepJournalIfHeld(Transition[bool]):
    """Keep what the steps of an operation came to so far, in place of what was kept before (contract R102).

    It stays with the record until that is completed or deleted: a later attempt goes on from it, and keeps its own
    in its place.

    Attributes:
        claim: the owner's; the record must be in progress, and an owner whose lease has lapsed still holds it.
        journal: the sealed journal.
    """

    claim: Claim
    journal: bytes


@value
class CompleteIfHeld(Transition[bool]):
    """Keep the outcome of a claim that still holds its record, in progress or marked unknown meanwhile.

    Attributes:
        claim: the owner's.
        response: the sealed snapshot.
        lifetime_ms: from now, how long the record replays.
        forget_after_ms: from the end of the lifetime, how long a tombstone stays.
    """

    claim: Claim
    response: bytes
    lifetime_ms: int
    forget_after_ms: int


@value
class ReleaseIfHeld(Transition[bool]):
    """Proven without effect: make the record retryable, fingerprint kept."""

    claim: Claim
    forget_after_ms: int


@value
class DiscardIfHeld(Transition[bool]):
    """Nothing ran: delete the record."""

    claim: Claim


@value
class MarkUnknownIfHeld(Transition[bool]):
    """The owner itself cannot tell whether the effect happened."""

    claim: Claim
    forget_after_ms: int


@value
class MarkUnknownIfLapsed(Transition[bool]):
    """The owner is gone: the record is in progress under `seen_token` and its lease has lapsed."""

    record_id: bytes
    seen_token: bytes
    forget_after_ms: int


@value
class ForgetIfOver(Transition[bool]):
    """Delete a record under `seen_token` that is no longer in progress and whose time to be forgotten has come."""

    record_id: bytes
    seen_token: bytes


@value
class CompleteIfUnknown(Transition[bool]):
    """Somebody found out that it took effect: keep an answer for a record that is unknown under `seen_token`.

    From there on it is as if its owner had completed it: the attributes are those of `CompleteIfHeld`.
    """

    record_id: bytes
    seen_token: bytes
    response: bytes
    lifetime_ms: int
    forget_after_ms: int


@value
class ReleaseIfUnknown(Transition[bool]):
    """Somebody found out that it did not take effect: make a record that is unknown under `seen_token` retryable.

    Its request and its journal stay, for the next attempt.
    """

    record_id: bytes
    seen_token: bytes
    forget_after_ms: int


@value
class RevokeIfSeen(Transition[bool]):
    """Take the claim away from the owner that `seen_token` belongs to: the record in progress becomes retryable.

    Whether its lease has lapsed does not matter. The token stays with the record, but an owner can settle only what
    is in progress or unknown: whatever it says afterwards is refused.
    """

    record_id: bytes
    seen_token: bytes
    forget_after_ms: int


@value
class ForgetIfSeen(Transition[bool]):
    """Delete a record that is not in progress, if it is still in `seen_state` under `seen_token`.

    Its history stays.
    """

    record_id: bytes
    seen_token: bytes
    seen_state: State


@value
class ReplaceResponseIfSame(Transition[bool]):
    """Keep the same response in other bytes, encrypted anew say; nothing else of the record changes.

    Attributes:
        record_id: of a completed record.
        seen_token: that the record was seen with.
        seen_response: the stored bytes as they were seen.
        response: the bytes to keep instead.
    """

    record_id: bytes
    seen_token: bytes
    seen_response: bytes
    response: bytes


@value
class Read(Transition[Found | None]):
    """The record as it stands, from where writes go; None if there is none. Changes nothing."""

    record_id: bytes


@value
class Details:
    """Everything that is kept of one record id.

    Attributes:
        found: the record, and the store's clock; None if there is no record.
        request: the sealed request, if one was kept and the record is not completed.
        journal: the sealed journal of its steps, if there were any and the record is not completed.
        history: the entries that were added and whose time is not over, in the order in which they were added.
    """

    found: Found | None
    request: bytes | None
    journal: bytes | None
    history: tuple[bytes, ...]


@value
class ReadDetails(Transition[Details]):
    """Everything that is kept of one record id, from where writes go. Changes nothing.

    The record, its request and its journal are of one moment.
    """

    record_id: bytes


HISTORY_ENTRY_BYTES_MAX = 8_192


@value
class AddHistory(Transition[bool]):
    """Add an entry to the history of a record id, which nothing changes afterwards. The answer is always true.

    A history belongs to the id, not to the record: it is there before the record and after it. When an entry's time
    is over, nobody sees it any more, and a purge deletes it. An addition whose reply was lost may have been made:
    who repeats it adds the entry twice.

    Attributes:
        record_id: whose; there need not be a record.
        entry: at most `HISTORY_ENTRY_BYTES_MAX`; kept as it is given.
        keep_ms: from now, how long this entry is kept.

    Raises:
        CallerError: the entry is longer.
    """

    record_id: bytes
    entry: bytes
    keep_ms: int

    def __post_init__(self) -> None:
        if len(self.entry) > HISTORY_ENTRY_BYTES_MAX:
            raise CallerError(
                f"an entry of a history has at most {HISTORY_ENTRY_BYTES_MAX} bytes, and this one has "
                f"{len(self.entry)}: shorten what is noted"
            )


# --- of many records -------------------------------------------------------------


@value
class Purged:
    """What one batch of purging did: records expired, records forgotten, whether more is due, of histories too."""

    expired: int
    forgotten: int
    more: bool


@value
class Purge(Transition[Purged]):
    """Expire and forget what is due, at most `batch_max` records of each, and as many histories or their entries."""

    batch_max: int = 200


@value
class StoredHead:
    """The beginning of a stored response, which says how it is kept: its first `STORED_HEAD_BYTES`, or all of it."""

    record_id: bytes
    head: bytes


STORED_HEAD_BYTES = 32


@value
class ResponsesPage:
    """Some of the stored responses, and where to go on; `next_after` is None at the end."""

    responses: tuple[StoredHead, ...]
    next_after: bytes | None


@value
class ListResponses(Transition[ResponsesPage]):
    """The next stored responses, in an order of the store's own, about `batch_max` of them.

    What is stored from the first page to the last is on one of them at least; a store may repeat one.

    Attributes:
        after: empty for the first page, then the `next_after` of the page before; opaque.
        batch_max: how many at most, where the store can count them beforehand.
    """

    after: bytes = b""
    batch_max: int = 200


@value
class Listed:
    """One record of a list; its response is left out."""

    record_id: bytes
    record: Record


@value
class RecordsPage:
    """Some records, the store's clock, and where to go on; `next_after` is None at the end."""

    records: tuple[Listed, ...]
    now_ms: int
    next_after: bytes | None


@value
class ListRecords(Transition[RecordsPage]):
    """The next records in some states, in an order of the store's own, about `batch_max` of them.

    What stands in such a state from the first page to the last is on one of them at least; a store may repeat one,
    and a page may be empty.

    Attributes:
        states: which records; the order of the states is of no importance.
        route: only those that were claimed under it; None is every route.
        after: empty for the first page, then the `next_after` of the page before; opaque.
        batch_max: how many at most, where the store can count them beforehand.
    """

    states: tuple[State, ...]
    route: str | None = None
    after: bytes = b""
    batch_max: int = 200


@value
class ListAbandoned(Transition[RecordsPage]):
    """The next records in progress whose lease has lapsed and whose request was kept; pages as for `ListRecords`.

    It is asked for again and again beside live traffic, so a store with tables answers it from an index, and says
    first what was abandoned first.
    """

    after: bytes = b""
    batch_max: int = 200


@value
class AnswerCount:
    """How many first answers of a route were recorded, and how many retries got one of them as a replay."""

    route: str
    recorded: int
    replayed: int


@value
class CountAnswers(Transition[bool]):
    """Add these counts to those of the present day, by the store's clock; forget days that are long over.

    Counted in each process and written in batches: a replay writes nothing. The answer is always true.
    """

    counts: tuple[AnswerCount, ...]


DAY_MS = 86_400_000
ANSWER_DAYS_KEPT = 31


@value
class RecordCount:
    """The records of one route that are in one state.

    Attributes:
        route: as it was claimed under; empty for records of a release that did not keep it.
        state: of all of them.
        records: how many.
        response_bytes: of their stored responses together.
        oldest_claim_ms: when the latest claim of the oldest was made, by the store's clock.
    """

    route: str
    state: State
    records: int
    response_bytes: int
    oldest_claim_ms: int


@value
class Stats:
    """The store as a whole, at one moment.

    Attributes:
        now_ms: the store's clock.
        records: by route, then state; sorted.
        answers: of the days that were asked for, by route; sorted.
    """

    now_ms: int
    records: tuple[RecordCount, ...]
    answers: tuple[AnswerCount, ...]


@value
class TakeStats(Transition[Stats]):
    """Count everything. It looks at every record: for people, never on the path of a request.

    Attributes:
        days: answers are those of today and the days before, so many together; at most `ANSWER_DAYS_KEPT`.
    """

    days: int = 7
