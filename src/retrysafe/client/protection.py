"""What every transport does around its library: which calls are protected, and by what key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from retrysafe.client.attempt import Ended, Schedule, attempts
from retrysafe.client.budget import RetryBudget
from retrysafe.client.intent import key_for, spelled
from retrysafe.client.profile import Profile, profile_of
from retrysafe.errors import ConfigurationError
from retrysafe.protocol.effects import Flow
from retrysafe.value import value

NOTE = "retrysafe.client"
"""Under this name a library's own objects carry what belongs to their operation."""


@value
class Call:
    """One operation: what all its attempts have in common.

    Attributes:
        key: as it is sent.
        origin: scheme and authority; the key goes nowhere else.
        created_at_s: when the key was first sent, by the wall clock; None if it was never.
    """

    key: str
    origin: str
    created_at_s: float | None = None


class Protection:
    """The settings of a transport.

    Args:
        profile: how the server takes keys: a name, or a `Profile`. By giving one you say that the server knows keys:
            nothing else would make it safe to send a request again (contract R92).
        origins: where to send keys, `"https://api.example.com"`; None is everywhere.
        schedule: how often and how long to try.
        budget: how many retries this process may make; shared by transports that are given the same one.

    Raises:
        ConfigurationError: there is no such profile, or an origin is none.
    """

    def __init__(
        self,
        profile: str | Profile,
        origins: Sequence[str] | None = None,
        schedule: Schedule | None = None,
        budget: RetryBudget | None = None,
    ) -> None:
        self.profile = profile_of(profile)
        self.schedule = schedule or Schedule()
        self.budget = budget or RetryBudget()
        self._origins = None if origins is None else frozenset(map(_checked_origin, origins))

    def call_of(self, method: str, url: str, headers: Mapping[str, str], before: object = None) -> Call | None:
        """The operation that a request belongs to; None if it is not to be protected.

        Args:
            method: of the request.
            url: absolute.
            headers: of the request; a key that the caller put there is kept as it is.
            before: what was noted on the request that this one was redirected from: the same operation at the same
                origin, and none at another.
        """
        origin = origin_of(url)
        if method.upper() not in self.profile.methods or (self._origins is not None and origin not in self._origins):
            return None
        if isinstance(before, Call):
            return before if before.origin == origin else None
        given = headers.get(self.profile.header)
        key = given or spelled(key_for(method.upper(), url.partition("#")[0]), self.profile)
        return Call(key, origin)

    def attempts(self, call: Call) -> Flow[Ended]:
        """The attempts of an operation."""
        return attempts(self.profile, self.schedule, call.created_at_s)


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL, in one spelling."""
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    return f"{parts.scheme}://{parts.hostname}:{port}"


def _checked_origin(origin: str) -> str:
    parts = urlsplit(origin)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ConfigurationError([f'origins contains "{origin}"; it must be as "https://api.example.com"'])
    return origin_of(origin)


def told(ended: Ended) -> str:
    """For people who see the exception that was raised after the last attempt."""
    return (
        f"retrysafe: tried {ended.attempts} time(s) under one idempotency key; the operation is {ended.certainty.value}"
    )
