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
# What stands before the layer that knows the key: it says nothing of earlier attempts.
_REFUSALS = frozenset({401, 403, 407, 413, 414, 431})
_UNKNOWN_CODES = frozenset({"outcome-unknown", "key-expired"})
_HARMLESS_CODES = frozenset({"store-unavailable", "upstream-unreachable"})


def meaning_of(reply: Reply, profile: Profile) -> Meaning:
    """What a reply means (contract R91; a hint of the server wins)."""
    if isinstance(reply, Failure):
        return Meaning.LATER
    if reply.hint is not None:
        return Meaning.LATER if reply.hint else Meaning.SETTLED
    if reply.code in _UNKNOWN_CODES:
        return Meaning.UNKNOWN
    if reply.replayed:
        return Meaning.SETTLED  # also an error: it is the outcome
    if reply.status == 409:
        return Meaning.LATER if _is_in_progress(reply, profile) else Meaning.SETTLED
    if reply.status in _LATER:
        return Meaning.LATER
    return Meaning.REFUSED if reply.status in _REFUSALS else Meaning.SETTLED


def _is_in_progress(answer: Answer, profile: Profile) -> bool:
    if profile.in_progress:
        return answer.code in profile.in_progress
    return answer.retry_after_s is not None


def may_have_effect(reply: Reply) -> bool:
    """Whether the server may have done something, or be doing it, after this reply."""
    if isinstance(reply, Failure):
        return reply.sent
    return (reply.status >= 500 and reply.code not in _HARMLESS_CODES) or reply.status in (408, 409)


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
    """The last reply, and what is known of the operation."""

    reply: Reply
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


def attempts(profile: Profile, schedule: Schedule, created_at_s: float | None = None) -> Flow[Ended]:
    """One operation, from its first attempt to its end.

    Args:
        profile: of the server.
        schedule: how often and how long.
        created_at_s: when its key was first sent, by the wall clock; None if this is the first time. Then an earlier
            attempt may have taken effect.
    """
    began_s = yield from perform(Now())
    latest_s = min(began_s + schedule.deadline_s, (created_at_s or began_s) + profile.lifetime_s - schedule.margin_s)
    doubtful = created_at_s is not None
    number = 0
    while True:
        number += 1
        reply = yield from perform(Send(number))
        meaning = meaning_of(reply, profile)
        if meaning is not Meaning.LATER:
            return Ended(reply, _certainty(meaning, doubtful=doubtful), number)
        doubtful = doubtful or may_have_effect(reply)
        pause = _pause(reply, number, schedule)
        now_s = yield from perform(Now())
        over = number >= schedule.attempts_max or now_s + pause.least_s > latest_s
        if over or not (yield from perform(Afford())):
            return Ended(reply, Certainty.UNKNOWN if doubtful else Certainty.NOT_DONE, number)
        yield from perform(Sleep(pause.least_s, min(pause.most_s, max(pause.least_s, latest_s - now_s))))


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
    jitter_s = min(schedule.delay_s_max, schedule.first_delay_s * 2 ** (number - 1))
    return Sleep(asked_s, asked_s + jitter_s)
