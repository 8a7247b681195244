"""What is tried again, when, and for how long. Pure: a driver sends, sleeps, and knows the time (contract R84-R94).

`attempts` is a flow in the manner of the server's: it asks for steps and performs none, so it is the same for every
library and for both colours, and reads from the first attempt to the end.
"""

from __future__ import annotations

from enum import Enum

from retrysafe.client.profile import Profile
from retrysafe.errors import ConfigurationError
from retrysafe.protocol.effects import Effect, Flow, perform
from retrysafe.value import value

# --- what happens to one attempt ------------------------------------------------------------------


@value
class Answer:
    """What an answer says that matters here.

    Attributes:
        status: the status code.
        replayed: it carries the profile's marker.
        code: of the problem or error in its content; empty if none was found.
        retry_after_s: when to come back, if the server said so.
        hint: what the profile's field says about trying again; None if it says nothing.
    """

    status: int
    replayed: bool = False
    code: str = ""
    retry_after_s: float | None = None
    hint: bool | None = None


@value
class Failure:
    """No answer came.

    Attributes:
        sent: whether the server may have got the request.
    """

    sent: bool


Reply = Answer | Failure


class Meaning(Enum):
    """What a reply means for the operation."""

    SETTLED = "the server said how it ended"
    REFUSED = "this attempt did nothing, and trying again would not help"
    LATER = "nothing is settled; try again"
    UNKNOWN = "nobody can tell whether it took effect, and trying again would not help"


_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
# What the server, or whatever stands in front of it, says without having looked at earlier attempts. None of these is
# an outcome that servers record, and 307 and 308 only say where to go.
_REFUSALS = frozenset({
    307, 308, 401, 403, 405, 407, 411, 412, 413, 414, 415, 417, 421, 423, 426, 428, 431, 451, 501, 505, 511
})  # fmt: skip
_WITHOUT_EFFECT = frozenset({425, 429})
# What problem documents of this project say, with the only status that they say it under: elsewhere an expired "key"
# may be one of the API's credentials.
_PROBLEMS = {
    ("outcome-unknown", 409): Meaning.UNKNOWN,
    ("key-expired", 412): Meaning.UNKNOWN,
    ("replay-unavailable", 409): Meaning.SETTLED,  # it was done; only its answer is not there
    ("key-reused", 422): Meaning.REFUSED,
    ("key-missing", 400): Meaning.REFUSED,
    ("key-invalid", 400): Meaning.REFUSED,
}
_HARMLESS = frozenset({("store-unavailable", 503), ("upstream-unreachable", 502), ("rolled-back", 500)})


def meaning_of(reply: Reply, profile: Profile, *, doubtful: bool) -> Meaning:
    """What a reply means for the operation (contract R91).

    Args:
        reply: to one attempt.
        profile: of the server.
        doubtful: an attempt before this one may have taken effect.
    """
    if isinstance(reply, Failure):
        return Meaning.LATER
    if 200 <= reply.status < 300:
        return Meaning.SETTLED
    said = _said(reply, profile, doubtful=doubtful)
    if reply.hint is None:
        return said
    if reply.hint:
        return Meaning.LATER
    if said is not Meaning.LATER:
        return said
    return Meaning.UNKNOWN if may_have_effect(reply) else Meaning.REFUSED


def _said(answer: Answer, profile: Profile, *, doubtful: bool) -> Meaning:
    """What an answer other than a success says by itself, without the server's hint."""
    if (problem := _PROBLEMS.get((answer.code, answer.status))) is not None:
        return problem
    if answer.replayed:
        return Meaning.SETTLED  # also an error: it is the outcome
    if answer.code in profile.in_progress or answer.status in _LATER:
        return Meaning.LATER
    if answer.status == 409 and not profile.in_progress:
        # Nobody said how to tell a conflict from an attempt that is still running. After an attempt of ours that got
        # no answer the latter is likelier, and to ask again is harmless.
        return Meaning.LATER if doubtful or answer.retry_after_s is not None else Meaning.SETTLED
    return Meaning.REFUSED if answer.status in _REFUSALS else Meaning.SETTLED


def may_have_effect(reply: Reply) -> bool:
    """Whether the server may have done something, or be doing it, after a reply that settles nothing."""
    if isinstance(reply, Failure):
        return reply.sent
    return reply.status not in _WITHOUT_EFFECT and (reply.code, reply.status) not in _HARMLESS


# --- one operation --------------------------------------------------------------------------------


@value
class Schedule:
    """How often and how long to try.

    Attributes:
        attempts_max: the first one among them.
        first_delay_s: the most that is waited before the second attempt; doubled for each further one.
        delay_s_max: the most that is waited by our own choice; `Retry-After` may ask for more.
        deadline_s: from the first attempt; no attempt begins later.
        margin_s: how long before the end of the key's lifetime the last attempt may begin.
    """

    attempts_max: int = 5
    first_delay_s: float = 0.5
    delay_s_max: float = 30.0
    deadline_s: float = 120.0
    margin_s: float = 300.0

    def __post_init__(self) -> None:
        faults = [
            f"schedule.{name} is {getattr(self, name)!r}; it must be {least} or more"
            for name, least in {
                "attempts_max": 1, "first_delay_s": 0, "delay_s_max": 0, "deadline_s": 0, "margin_s": 0,
            }.items()
            if not getattr(self, name) >= least
        ]  # fmt: skip
        if faults:
            raise ConfigurationError(faults)


class Certainty(Enum):
    """What is known of the operation when no further attempt is made."""

    SETTLED = "settled"
    NOT_DONE = "not done"
    UNKNOWN = "unknown"


@value
class Ended:
    """The last reply, and what is known of the operation.

    Attributes:
        reply: None if its key was too old for even one attempt.
        certainty: what is known.
        attempts: how many were made.
    """

    reply: Reply | None
    certainty: Certainty
    attempts: int


@value
class Send(Effect[Reply]):
    """Send the request, the same bytes under the same key."""

    number: int


@value
class Sleep(Effect[None]):
    """Wait for a time that is drawn between these two."""

    least_s: float
    most_s: float


@value
class Now(Effect[float]):
    """The wall clock, in seconds. Keys live on it, so it must be comparable over restarts."""


@value
class Afford(Effect[bool]):
    """May one more retry be made by this process, which may be in a storm of them?"""


def attempts(
    profile: Profile, schedule: Schedule, *, created_at_s: float | None = None, doubtful: bool = False
) -> Flow[Ended]:
    """One operation, from its first attempt to its end.

    Args:
        profile: of the server.
        schedule: how often and how long.
        created_at_s: when its key was first sent, by the wall clock; None if that is now, or nobody knows.
        doubtful: the key may have been sent before, and have taken effect.
    """
    began_s = yield from perform(Now())
    first_s = began_s if created_at_s is None else created_at_s
    margin_s = min(schedule.margin_s, profile.lifetime_s / 2)  # or a short lifetime would leave no time at all
    latest_s = min(began_s + schedule.deadline_s, first_s + profile.lifetime_s - margin_s)
    reply: Reply | None = None
    now_s, number = began_s, 0
    while now_s <= latest_s:  # a retry beyond it would be a new operation (contract R94)
        number += 1
        reply = yield from perform(Send(number))
        meaning = meaning_of(reply, profile, doubtful=doubtful)
        if meaning is not Meaning.LATER:
            return Ended(reply, _certainty(meaning, doubtful=doubtful), number)
        doubtful = doubtful or may_have_effect(reply)
        pause = _pause(reply, number, schedule)
        now_s = yield from perform(Now())
        if number >= schedule.attempts_max or now_s + pause.least_s > latest_s or not (yield from perform(Afford())):
            break
        yield from perform(Sleep(pause.least_s, min(pause.most_s, latest_s - now_s)))
        now_s = yield from perform(Now())
    return Ended(reply, Certainty.UNKNOWN if doubtful else Certainty.NOT_DONE, number)


def _certainty(meaning: Meaning, *, doubtful: bool) -> Certainty:
    match meaning:
        case Meaning.SETTLED:
            return Certainty.SETTLED
        case Meaning.REFUSED:
            return Certainty.UNKNOWN if doubtful else Certainty.NOT_DONE
        case Meaning.UNKNOWN | Meaning.LATER:
            return Certainty.UNKNOWN


def _pause(reply: Reply, number: int, schedule: Schedule) -> Sleep:
    """Full jitter: anything from nothing to twice as much as before; what the server asked for is the least."""
    asked_s = reply.retry_after_s or 0.0 if isinstance(reply, Answer) else 0.0
    jitter_s = min(schedule.delay_s_max, schedule.first_delay_s * 2.0 ** min(number - 1, 62))
    return Sleep(asked_s, asked_s + jitter_s)
