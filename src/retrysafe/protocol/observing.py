"""What protection would have done with a request, while nothing is done to it: `mode="observe"`.

The same pieces judge as in protection: key, fingerprint, `decision.decide` and `decision.judge`. What they judge are
records of a namespace of its own, so that an observed record never meets one of protection. They differ from those in
two things: of an answer only the status is kept, and their lease is `execution_max`, because nobody renews it.

Counts are kept beside them, each process its own: a record whose journal is the counts of that process. It is written
whole each time, so that a write whose reply was lost is repeated, and nothing is counted twice.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from enum import StrEnum
from typing import assert_never

from retrysafe.errors import StoreUnusable
from retrysafe.model import BytesBody, Claim, Head, Request, Response
from retrysafe.protocol.decision import (
    KEY_REUSED,
    Abandon,
    Forget,
    Reclaim,
    Refuse,
    Replay,
    Run,
    TakeOver,
    Verdict,
    Wait,
    decide,
    judge,
)
from retrysafe.protocol.effects import Answered, Ended, Fate, Flow, perform
from retrysafe.protocol.fingerprint import fingerprint_of, matches
from retrysafe.protocol.framing import frame
from retrysafe.protocol.key import Key
from retrysafe.protocol.key import record_id as protected_id
from retrysafe.protocol.mac import mac
from retrysafe.protocol.policy import Policy
from retrysafe.protocol.snapshot import Encryption, seal, take_snapshot
from retrysafe.protocol.transitions import (
    ClaimIfAbsent,
    ClaimIfRetryable,
    CompleteIfHeld,
    DiscardIfHeld,
    ForgetIfOver,
    ReleaseIfHeld,
)
from retrysafe.value import value

COUNTS_ROUTE = "observed"
"""The route of the records that hold counts; no entry of a table is in lower case."""

_PREFIX = f"{COUNTS_ROUTE} "
_ROUTE_CHARACTERS_MAX = 255
_ROUNDS_MAX = 8
_VERSION = 1


class Sight(StrEnum):
    """What an observed request was; each is one of these, and counted once."""

    MISSING = "missing_keys"
    MALFORMED = "malformed_keys"
    NO_SCOPE = "no_scope"
    FIRST = "first_attempts"
    IN_FLIGHT = "duplicates_in_flight"
    REPLAYED = "duplicates_replayed"
    EXPIRED = "duplicates_expired"
    MISMATCH = "mismatches"
    TOO_LARGE = "too_large"
    NOT_COMPARED = "not_compared"
    LOST = "lost"


# --- one request ----------------------------------------------------------------------------------


@value
class Seen:
    """A whole request with a key.

    Attributes:
        request: with its content.
        key: as parsed.
        scope: the account that the key belongs to.
        policy: of the route, which is what protection would go by.
        route: the entry of the routes table.
        token: 16 random bytes.
    """

    request: Request
    key: Key
    scope: str
    policy: Policy
    route: str
    token: bytes


@value
class Place:
    """Where a door keeps what it observes.

    Attributes:
        namespace: of the deployment.
        secret: of the store.
        encryption: of what is stored.
    """

    namespace: str
    secret: bytes
    encryption: Encryption | None


def observed_route(entry: str) -> str:
    """Under which route the records of an observed one are kept, by which operators' commands tell them apart."""
    return f"{_PREFIX}{entry}"[:_ROUTE_CHARACTERS_MAX]


def is_observed(route: str) -> bool:
    """Whether a record was made by observing, and holds nothing back."""
    return route == COUNTS_ROUTE or route.startswith(_PREFIX)


def observed_id(place: Place, scope: str, key: Key) -> bytes:
    """Under which a store keeps the observed record of a key: never the id of a protected one, whatever its name."""
    return mac(place.secret, frame(b"retrysafe observed", protected_id(place.secret, place.namespace, scope, key)))


def see(seen: Seen, place: Place) -> Flow[tuple[Sight, Claim | None]]:
    """What the request is, among those that were seen; and the claim that its end is to be noted with, if it has one.

    Raises:
        StoreError: the store failed.
    """
    policy = seen.policy
    identity = observed_id(place, seen.scope, seen.key)
    fingerprint = fingerprint_of(seen.request, policy, place.secret)
    ends = policy.execution_max_ms, policy.unknown_retention_ms
    for _ in range(_ROUNDS_MAX):
        claiming = ClaimIfAbsent(identity, seen.token, fingerprint, *ends, observed_route(seen.route))
        found = yield from perform(claiming)
        record = found.record
        same = hmac.compare_digest(record.fingerprint, fingerprint) or matches(
            record.fingerprint, seen.request, policy, place.secret
        )
        match decide(found, seen.token, policy, same_request=same):
            case Run():
                return Sight.FIRST, Claim(identity, seen.token, record.attempt)
            case Replay():
                return Sight.REPLAYED, None
            case Refuse(problem):
                return _SIGHT_OF_REFUSAL.get(problem.code, Sight.IN_FLIGHT), None
            case Wait() | TakeOver() | Abandon():  # the first attempt was never seen to end
                return Sight.IN_FLIGHT, None
            case Reclaim():
                if (yield from perform(ClaimIfRetryable(identity, record.token, seen.token, *ends))):
                    return Sight.FIRST, Claim(identity, seen.token, record.attempt + 1)
            case Forget():
                yield from perform(ForgetIfOver(identity, record.token))
            case never:
                assert_never(never)
    return Sight.IN_FLIGHT, None  # it changes under every look: others are at it


_SIGHT_OF_REFUSAL = {KEY_REUSED.code: Sight.MISMATCH, "key-expired": Sight.EXPIRED}


def note_end(claim: Claim, ended: Ended, head: Head, policy: Policy, place: Place) -> Flow[None]:
    """Note how a first attempt ended, so that the next one finds what it would find under protection.

    An end that leaves the outcome unknown is not noted: nobody saw the attempt end. `classify` is not asked, because
    the content that it judges by was not kept.

    Raises:
        StoreError: the store failed.
    """
    if policy.classify is not None:
        policy = replace(policy, classify=None)
    verdict = judge(ended, Request(head, BytesBody()), policy)
    if verdict is Verdict.DISCARD and claim.attempt > 1:
        verdict = Verdict.RELEASE
    match verdict:
        case Verdict.RECORD:
            status = ended.response.status if isinstance(ended, Answered) else 500
            kept = Answered(Response(status, ()), whole=True, size=0, digest=b"", fate=Fate.RAN)
            snapshot = take_snapshot(kept, head)
            stored = seal(snapshot, claim.record_id, place.secret, place.encryption)
            yield from perform(CompleteIfHeld(claim, stored, policy.keep_ms, policy.tombstone_ms))
        case Verdict.RELEASE:
            yield from perform(ReleaseIfHeld(claim, policy.lifetime_ms))
        case Verdict.DISCARD:
            yield from perform(DiscardIfHeld(claim))
        case Verdict.UNKNOWN | Verdict.RESUME:
            return
        case _:
            assert_never(verdict)


# --- counts ---------------------------------------------------------------------------------------


@value
class RouteCounts:
    """What was seen of one route.

    Attributes:
        route: the entry of the routes table.
        counts: how often each was seen; none is left out but those that are zero.
        first_seen_ms, last_seen_ms: when counts of it were first and last written, by the store's clock.
    """

    route: str
    counts: Mapping[Sight, int]
    first_seen_ms: int
    last_seen_ms: int

    def of(self, *sights: Sight) -> int:
        """How many requests were one of these."""
        return sum(self.counts.get(sight, 0) for sight in sights)

    @property
    def requests(self) -> int:
        """How many were seen: each is counted once."""
        return self.of(*Sight)


def encoded(routes: Iterable[RouteCounts]) -> bytes:
    """Counts as they are stored: JSON, with a version."""
    document = [
        {
            "route": route.route,
            "first_seen_ms": route.first_seen_ms,
            "last_seen_ms": route.last_seen_ms,
            **{sight.value: count for sight, count in route.counts.items() if count},
        }
        for route in routes
    ]
    return json.dumps({"version": _VERSION, "routes": document}, separators=(",", ":")).encode()


def decoded(stored: bytes) -> tuple[RouteCounts, ...]:
    """What `encoded` was given; what a newer release counts besides is left out.

    Raises:
        StoreUnusable: a newer release wrote them in another form.
    """
    document = json.loads(stored)
    if document["version"] != _VERSION:
        raise StoreUnusable(
            f"what was observed is stored in version {document['version']}, and this release reads {_VERSION}: "
            "ask with the release that wrote it"
        )
    return tuple(
        RouteCounts(
            route["route"],
            {sight: route[sight.value] for sight in Sight if route.get(sight.value)},
            route["first_seen_ms"],
            route["last_seen_ms"],
        )
        for route in document["routes"]
    )


def added(counted: Iterable[RouteCounts]) -> tuple[RouteCounts, ...]:
    """The counts of many processes, each route once, sorted."""
    sums: dict[str, RouteCounts] = {}
    for one in counted:
        before = sums.get(one.route, one)
        both = [sight for sight in Sight if before.of(sight) or one.of(sight)]
        counts = one.counts if before is one else {sight: before.of(sight) + one.of(sight) for sight in both}
        first_ms, last_ms = min(before.first_seen_ms, one.first_seen_ms), max(before.last_seen_ms, one.last_seen_ms)
        sums[one.route] = RouteCounts(one.route, counts, first_ms, last_ms)
    return tuple(sums[route] for route in sorted(sums))
