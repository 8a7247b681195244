"""What a record means, judged in one pure place: never in SQL, never in a door.

`decide` judges what a claim found; `judge` judges what a handler answered.
"""

from __future__ import annotations

from enum import Enum
from typing import assert_never
from urllib.parse import urlsplit

from retrysafe.model import Found, Record, Request, Response, State
from retrysafe.protocol.duration import iso8601
from retrysafe.protocol.effects import Answered, Broken, Cancelled, Ended, Fate, Raised
from retrysafe.protocol.policy import Policy
from retrysafe.protocol.problem import Problem, retry_after
from retrysafe.value import value

# --- what a claim found ---------------------------------------------------------------------------


@value
class Run:
    """The claim holds: execute."""


@value
class Replay:
    """Answer from the record."""

    record: Record


@value
class Refuse:
    """Answer with a problem; run nothing."""

    problem: Problem


@value
class Wait:
    """The first attempt is in flight: wait for it; where that cannot be, answer with the problem."""

    problem: Problem


@value
class TakeOver:
    """The owner is gone and the route says that it may run again."""


@value
class Abandon:
    """The owner is gone and nobody may run again: the outcome is unknown."""


@value
class Reclaim:
    """The last attempt is known to have done nothing: run again."""


@value
class Forget:
    """The record's time is over: as if there were none."""


RUN = Run()

Finding = Replay | Refuse | Wait | TakeOver | Abandon | Reclaim | Forget
"""What a record means that is not held by who asks."""

Decision = Run | Finding


def decide(found: Found, token: bytes, policy: Policy, *, same_request: bool) -> Decision:
    """Judge the record that a claim found (contract part D).

    Another request under the same key is refused in every state, and before anything else is said of
    the record, so that a client's mistake never looks like a request in progress (R34).

    Args:
        found: the record and the store's clock.
        token: of the claim that asked.
        policy: of the route.
        same_request: the record's fingerprint is this request's.
    """
    record, now_ms = found.record, found.now_ms
    if record.token == token and record.state is State.IN_PROGRESS:
        return RUN
    if record.state is not State.IN_PROGRESS and record.forget_at_ms <= now_ms:
        return Forget()
    if not same_request:
        return Refuse(KEY_REUSED)
    match record.state:
        case State.IN_PROGRESS if in_flight(found):
            problem = _in_progress(record, now_ms)
            return Wait(problem) if policy.in_flight == "wait" else Refuse(problem)
        case State.IN_PROGRESS:
            return TakeOver() if policy.recovery == "rerun" else Abandon()
        case State.COMPLETED if record.expires_at_ms is not None and record.expires_at_ms > now_ms:
            return Replay(record)
        case State.COMPLETED | State.EXPIRED:
            return Refuse(_key_expired(policy))
        case State.RETRYABLE:
            return Reclaim()
        case State.UNKNOWN:
            return Refuse(OUTCOME_UNKNOWN)
        case _:
            assert_never(record.state)


def in_flight(found: Found | None) -> bool:
    """Whether there is a record whose claim is live: in progress, and its lease has not lapsed."""
    if found is None:
        return False
    return found.record.state is State.IN_PROGRESS and found.record.lease_until_ms > found.now_ms


KEY_REUSED = Problem(
    "key-reused",
    "This idempotency key was first sent with a different request. Send the original request again, "
    "or use a new key for a new request.",
)
OUTCOME_UNKNOWN = Problem(
    "outcome-unknown",
    "A request with this key was started and its outcome is not known: it may or may not have taken effect. "
    "It is not run again. Find out by other means before you use a new key.",
)


def _in_progress(record: Record, now_ms: int) -> Problem:
    seconds = retry_after_s(record, now_ms)
    return Problem(
        "in-progress",
        "The first request with this key is still being handled. Send the same request again after the time "
        "that Retry-After says.",
        members=(("retry_after", seconds),),
        headers=retry_after(seconds),
    )


def retry_after_s(record: Record, now_ms: int) -> int:
    """When to ask again, in whole seconds: max(1, min(lease left, age of the claim)) (R46).

    A young claim is likely to end soon; an old one is asked after in growing steps, and never later
    than its lease.
    """
    left_ms = record.lease_until_ms - now_ms
    age_ms = now_ms - record.claimed_at_ms
    return max(1, -(-min(left_ms, age_ms) // 1_000))


def _key_expired(policy: Policy) -> Problem:
    lifetime = iso8601(policy.lifetime_ms)
    return Problem(
        "key-expired",
        f"A request with this key was finished longer ago than the lifetime of a key, {lifetime}. It is not run "
        "again. Find out what became of it before you use a new key.",
        members=(("lifetime", lifetime),),
    )


# --- what a handler answered ----------------------------------------------------------------------


class Verdict(Enum):
    """What becomes of the record after the handler."""

    RECORD = "record"
    RELEASE = "release"
    DISCARD = "discard"
    UNKNOWN = "unknown"
    RESUME = "resume"


# A handler that answers one of these says that it did nothing *yet* (contract part E): the caller was
# not let in, or came too early. 500, 502 and 504 are not among them and never can be (R52).
RELEASED_STATUSES = frozenset({401, 403, 405, 407, 408, 415, 421, 423, 425, 429})

_VERDICT_OF_FATE = {Fate.NO_EFFECT: Verdict.RELEASE, Fate.NOT_RUN: Verdict.DISCARD, Fate.UNKNOWN: Verdict.UNKNOWN}

# What these say counts only if the attempt failed; an answer that is none is an outcome like any other.
_VERDICT_OF_FAILURE = {
    Fate.NOT_REACHED: Verdict.DISCARD,
    Fate.NOT_BEGUN: Verdict.RELEASE,
    Fate.RESUMABLE: Verdict.RESUME,
    Fate.OPEN: Verdict.UNKNOWN,
}


_CLASSES = {"record": Verdict.RECORD, "release": Verdict.RELEASE, "unknown": Verdict.UNKNOWN}


def judge(outcome: Ended, request: Request, policy: Policy) -> Verdict:
    """Judge what a handler answered (contract part E, R51, R52).

    What the handler says of its own operation goes first, then the policy's `classify`, then the table. Where the
    handler's work is committed together with its record, a failure that completed no record has had no effect (R42).

    Raises:
        Exception: `classify` raised, or returned another word than it may.
    """
    match outcome:
        case Answered(fate=fate) if fate in _VERDICT_OF_FAILURE and outcome.response.status >= _failures_from(fate):
            return _VERDICT_OF_FAILURE[fate]
        case Answered(fate=fate, response=response) if fate not in _VERDICT_OF_FATE:
            if policy.classify is not None and (said := policy.classify(response)) is not None:
                return _CLASSES[said]
            if response.status in RELEASED_STATUSES or (policy.transactional and response.status >= 500):
                return Verdict.RELEASE
            is_redirect = response.status in _ROUTER_REDIRECTS and _goes_to_the_same(response, request)
            return Verdict.DISCARD if is_redirect else Verdict.RECORD
        case Raised(fate=fate) | Cancelled(fate=fate) if fate in _VERDICT_OF_FAILURE:
            return _VERDICT_OF_FAILURE[fate]
        case Answered(fate=fate) | Cancelled(fate=fate) if fate is not Fate.RAN:
            return _VERDICT_OF_FATE[fate]
        case Raised(fate=fate):
            return _VERDICT_OF_FATE.get(fate, Verdict.RELEASE if policy.transactional else Verdict.RECORD)
        case Broken() | Cancelled():
            return Verdict.RELEASE if policy.transactional else Verdict.UNKNOWN
    raise AssertionError(f"an outcome that nobody judged: {type(outcome).__name__}")


def _failures_from(fate: Fate) -> int:
    """The least status that is a failure: in place of a handler, all but a success is a refusal."""
    return 300 if fate is Fate.NOT_REACHED else 500


_ROUTER_REDIRECTS = (307, 308)


def _goes_to_the_same(response: Response, request: Request) -> bool:
    """A redirect to the same path with or without its last slash: the router's, before any handler.

    If it were recorded, the request that follows it would carry the same key and another path.
    """
    location = response.value(b"location")
    if location is None:
        return False
    try:
        path = urlsplit(location.decode("latin-1")).path.encode("latin-1")
    except ValueError:  # no URL: no router wrote it
        return False
    return path != request.head.path and path.rstrip(b"/") == request.head.path.rstrip(b"/")
