"""What every transport does around its library: which calls are protected, by what key, and what is written down."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from retrysafe.client.answers import answer_of
from retrysafe.client.attempt import Answer, Certainty, Ended, Reply, Schedule, attempts
from retrysafe.client.budget import RetryBudget
from retrysafe.client.entry import Asked, Entry
from retrysafe.client.intent import current_intent, key_for, random_key, spelled
from retrysafe.client.journal import Journal, Wish
from retrysafe.client.profile import Profile, profile_of
from retrysafe.client.run import finished, in_thread, run, run_async, wall_clock_s
from retrysafe.errors import CallerError, ConfigurationError, OutcomeUnknown
from retrysafe.protocol.effects import Flow
from retrysafe.value import value

NOTE = "retrysafe.client"
"""Under this name a library's own objects carry what belongs to their operation."""

_ENDED = "_retrysafe_ended"

# Answers that are read as they come; any other is read whole, so that one that breaks off is one that did not come.
_STREAMS = ("text/event-stream", "application/x-ndjson", "multipart/x-mixed-replace")
_WHOLE_BYTES_MAX = 8 << 20


@value
class Call:
    """One operation: what all its attempts have in common.

    Attributes:
        key: as it is sent.
        origin: scheme and authority; the key goes nowhere else.
        name: of the intent; empty if there is none.
        own: the key is the caller's.
        doubtful: the key may have been sent before.
        entry: of the journal, once it is written down.
    """

    key: str = field(repr=False)
    origin: str
    name: str = ""
    own: bool = False
    doubtful: bool = False
    entry: Entry | None = None


@dataclass(slots=True)
class Resuming:
    """The entry that the calling code is sending again, and how that ended."""

    entry: Entry
    ended: Ended | None = None


resuming: ContextVar[Resuming | None] = ContextVar("retrysafe_resuming", default=None)


class Protection:
    """The settings of a transport.

    Args:
        profile: how the server takes keys: a name such as `"retrysafe"`, `"stripe-v1"` or `"ietf"`, or a `Profile`. By
            giving one you say that the server knows keys: nothing else would make it safe to send a request again
            (contract R92).
        origins: where to send keys, `"https://api.example.com"`; None is everywhere.
        schedule: how often and how long to try.
        budget: how many retries this process may make; shared by transports that are given the same one.
        journal: where operations are written down before they are sent; None: nowhere.

    Raises:
        ConfigurationError: there is no such profile, or an origin is none.
    """

    def __init__(
        self,
        profile: str | Profile,
        *,
        origins: Sequence[str] | None = None,
        schedule: Schedule | None = None,
        budget: RetryBudget | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.profile = profile_of(profile)
        self._schedule = schedule or Schedule()
        self._budget = budget or RetryBudget()
        self._journal = journal
        self._origins = None if origins is None else frozenset(map(_checked_origin, origins))

    def asked(self, method: str, url: str, headers: Iterable[tuple[str, str]], content: bytes) -> Asked:
        """A request as it is kept: without its key.

        Args:
            method: of the request.
            url: absolute.
            headers: of the request, as they are sent.
            content: all of it.
        """
        header = self.profile.header.lower()
        kept = tuple((name, line) for name, line in headers if name.lower() != header)
        return Asked(method.upper(), url, kept, content)

    def reply(self, status: int, headers: Mapping[str, str], content: bytes) -> Answer:
        """An answer, as it matters for trying again; the arguments are those of `answer_of`."""
        return answer_of(status, headers, content, self.profile, wall_clock_s())

    def call_of(self, method: str, url: str, headers: Mapping[str, str], before: object = None) -> Call | None:
        """The operation that a request belongs to; None if it is not to be protected.

        Args:
            method: of the request.
            url: absolute.
            headers: of the request; a key that the caller put there is kept as it is.
            before: what was noted on the request that this one was redirected from, or on this one when it was sent
                before: the same operation at the same origin, and none at another.
        """
        origin, method = origin_of(url), method.upper()
        if method not in self.profile.methods or (self._origins is not None and origin not in self._origins):
            return None
        if isinstance(before, Call):
            return before if before.origin == origin else None
        given = headers.get(self.profile.header)
        if (resumed := self._resumed(origin, given)) is not None:
            return resumed
        if given:
            return Call(given, origin, own=True, doubtful=True)
        name = current_intent()
        if name is None or self._journal is not None:
            return Call(spelled(random_key(), self.profile), origin, name or "")
        key = spelled(key_for(name, method, url.partition("#")[0]), self.profile)
        return Call(key, origin, name, doubtful=True)

    def _resumed(self, origin: str, given: str | None) -> Call | None:
        """The operation that is being sent again; None if the request is not that."""
        now = resuming.get()
        if now is None or origin != origin_of(now.entry.asked.url):
            return None
        if now.entry.header.lower() != self.profile.header.lower():
            raise CallerError(
                f'the journal has a call under a key in "{now.entry.header}", and the client sends keys in '
                f'"{self.profile.header}": give resume() a client with the profile that the call was made with'
            )
        return Call(given, origin, now.entry.name, doubtful=True, entry=now.entry) if given == now.entry.key else None

    def perform(self, call: Call, asked: Asked, send: Callable[[Call], Reply]) -> tuple[Call, Ended]:
        """All attempts of an operation, written down before and after.

        Args:
            call: the operation.
            asked: its request.
            send: one attempt; it raises nothing that is a failure of the network.

        Returns:
            The operation as the next request that belongs to it has to know it, and how it ended.
        """
        call = self._begin(call, asked)
        ended: Ended | None = None
        try:
            ended = run(self._attempts(call), lambda: send(call), self._budget)
        finally:
            self._end(call, ended)
        return _after(call, ended), ended

    async def perform_async(
        self, call: Call, asked: Asked, send: Callable[[Call], Awaitable[Reply]]
    ) -> tuple[Call, Ended]:
        """As `perform`, on this event loop; the journal is written on a thread."""
        if self._journal is None:
            begun = call
        else:
            begun = await in_thread(lambda: self._begin(call, asked), undo=lambda begun: self._end(begun, None))
        ended: Ended | None = None
        try:
            ended = await run_async(self._attempts(begun), lambda: send(begun), self._budget)
        finally:
            if self._journal is None:
                self._end(begun, ended)
            else:
                await finished(lambda: self._end(begun, ended))
        return _after(begun, ended), ended

    def _attempts(self, call: Call) -> Flow[Ended]:
        created_at_s = call.entry.created_at_s if call.entry is not None else None
        return attempts(self.profile, self._schedule, created_at_s=created_at_s, doubtful=call.doubtful)

    def _begin(self, call: Call, asked: Asked) -> Call:
        if self._journal is None:
            return call
        wish = Wish(call.name, call.key, call.own, self.profile.header, self.profile.lifetime_s)
        if call.entry is None:
            entry, doubtful = self._journal.begin(asked, wish)
            return replace(call, key=entry.key, entry=entry, doubtful=doubtful)
        now = resuming.get()
        if now is None or now.entry is not call.entry:  # what is resumed was taken by whoever resumes it
            self._journal.again(call.entry, asked, wish)
        return call

    def _end(self, call: Call, ended: Ended | None) -> None:
        """Write down how it ended; None: it was broken off, by a cancellation say."""
        now = resuming.get()
        if now is not None and now.entry is call.entry:
            now.ended = ended
        elif self._journal is not None and call.entry is not None:
            write_end(self._journal, call.entry, ended)


def write_end(journal: Journal, entry: Entry, ended: Ended | None) -> None:
    """What the end of an operation means for its entry."""
    certainty = Certainty.UNKNOWN if ended is None else ended.certainty
    moved = ended is not None and isinstance(ended.reply, Answer) and ended.reply.status in (307, 308)
    if certainty is Certainty.SETTLED:
        journal.settle(entry)
    elif certainty is Certainty.NOT_DONE and not moved:
        journal.drop(entry)
    else:
        journal.leave(entry)


def _after(call: Call, ended: Ended) -> Call:
    return replace(call, doubtful=call.doubtful or ended.certainty is not Certainty.NOT_DONE)


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


def is_read_whole(status: int, headers: Mapping[str, str]) -> bool:
    """Whether an answer counts only when all of it has come: an error does, and what is not a stream."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    length = headers.get("content-length", "")
    too_long = length.isascii() and length.isdigit() and int(length) > _WHOLE_BYTES_MAX
    return status >= 400 or not (kind in _STREAMS or too_long)


def is_broken_off(status: int, headers: Mapping[str, str], version: int | None) -> bool:
    """Whether an answer ended within its head, as far as that can be told where the library does not.

    `http.client` takes the end of a connection for the end of a head. What is left of it does not say where the content
    ends, as every whole head of HTTP/1.1 does.

    Args:
        status: its code.
        headers: its fields.
        version: of HTTP as `http.client` has it, 11 for HTTP/1.1.
    """
    says = "content-length" in headers or "transfer-encoding" in headers
    says = says or "close" in headers.get("connection", "").lower()
    return version == 11 and status not in (204, 205, 304) and not says


def is_hopeless(failure: BaseException) -> bool:
    """Whether the other side is not who it should be: a certificate that is wrong now is wrong in a minute."""
    seen: BaseException | None = failure
    for _ in range(8):
        if seen is None or isinstance(seen, ssl.SSLCertVerificationError):
            break
        causes = (seen.__cause__, seen.__context__, getattr(seen, "reason", None), *seen.args[:1])
        seen = next((cause for cause in causes if isinstance(cause, BaseException)), None)
    return isinstance(seen, ssl.SSLCertVerificationError)


def conclude(ended: Ended, response: Any, failure: Exception | None) -> Any:
    """The last response; what went wrong instead is raised.

    Raises:
        OutcomeUnknown: the key was too old for even one attempt.
    """
    if ended.reply is None:
        raise OutcomeUnknown(
            "The lifetime of this key is over and nobody knows how its call ended. It was not sent again: find out by "
            "other means, then forget() its entry in the journal."
        )
    setattr(failure if failure is not None else response, _ENDED, ended)
    if failure is None:
        return response
    failure.add_note(
        f"retrysafe: tried {ended.attempts} time(s) under one idempotency key; the operation is {ended.certainty.value}"
    )
    raise failure


def outcome(of: object) -> Ended | None:
    """What is known of an operation, by its response or by the exception that was raised instead.

    Args:
        of: what a client returned or raised.

    Returns:
        The last reply, the number of attempts, and whether the operation is settled, known not to be done, or unknown;
        None if the call was not protected.
    """
    found = getattr(of, _ENDED, None)
    return found if isinstance(found, Ended) else None
