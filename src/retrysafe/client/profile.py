"""How a server takes keys, and what its answers mean: what clients must know that no standard says (contract R95).

A profile is a value. Those below are of servers whose documentation, or source, was read; for any other, `ietf` is what
the draft standard asks for.
"""

from __future__ import annotations

from enum import StrEnum

from retrysafe.errors import ConfigurationError
from retrysafe.value import value

HOUR_S = 3_600.0
DAY_S = 24 * HOUR_S


class Spelling(StrEnum):
    """How a key is written in its field."""

    QUOTED = "quoted"
    BARE = "bare"


@value
class Profile:
    """A kind of server.

    Attributes:
        name: how it is called in settings.
        header: the field that carries the key.
        spelling: how the key is written; it never changes between attempts.
        methods: the methods that take a key.
        lifetime_s: for how long the server knows a key at least; a retry beyond it would be a new operation.
        in_progress: what names a refusal because the request is still running: codes in the answer's JSON. Empty: any
            409 that says `Retry-After`, or that comes after an attempt without an answer.
        replay_marker: the field that is on replays alone; empty if there is none.
        retry_hint: a field of errors whose `true` or `false` says whether to try again, above all else; empty if there
            is none.
    """

    name: str
    header: str = "Idempotency-Key"
    spelling: Spelling = Spelling.BARE
    methods: tuple[str, ...] = ("POST", "PATCH")
    lifetime_s: float = DAY_S
    in_progress: tuple[str, ...] = ()
    replay_marker: str = ""
    retry_hint: str = ""


IETF = Profile("ietf", spelling=Spelling.QUOTED)

PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        IETF,
        Profile(
            "retrysafe", spelling=Spelling.QUOTED, in_progress=("in-progress",), replay_marker="idempotent-replayed"
        ),
        Profile(
            "stripe-v1",
            methods=("POST",),
            in_progress=("idempotency_key_in_use",),
            replay_marker="idempotent-replayed",
            retry_hint="stripe-should-retry",
        ),
        Profile("stripe-v2", methods=("POST", "DELETE"), lifetime_s=30 * DAY_S, retry_hint="stripe-should-retry"),
        Profile("adyen", methods=("POST",), lifetime_s=7 * DAY_S, in_progress=("704",), retry_hint="transient-error"),
        Profile(
            "paypal",
            header="PayPal-Request-Id",
            methods=("POST",),
            lifetime_s=3 * HOUR_S,
            in_progress=("PREVIOUS_REQUEST_IN_PROGRESS",),
        ),
        Profile("checkout", header="Cko-Idempotency-Key", methods=("POST",)),
        Profile("worldline", header="X-GCS-Idempotence-Key", methods=("POST",)),
        Profile("zuora"),
        Profile(
            "whop",
            methods=("POST",),
            in_progress=("idempotency_request_in_progress",),
            replay_marker="idempotent-replayed",
        ),
        Profile("toss", lifetime_s=15 * DAY_S, in_progress=("IDEMPOTENT_REQUEST_PROCESSING",)),
    )
}


def profile_of(given: str | Profile) -> Profile:
    """The profile that a setting names, or is.

    Raises:
        ConfigurationError: there is none of that name.
    """
    if isinstance(given, Profile):
        return given
    if given not in PROFILES:
        raise ConfigurationError(
            [f'profile is "{given}"; it must be a Profile, or one of {", ".join(sorted(PROFILES))}']
        )
    return PROFILES[given]
