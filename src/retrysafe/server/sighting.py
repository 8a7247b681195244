"""One request with a key that is only observed, as a door tells of it, piece by piece.

Whoever tells is never made to wait, and nothing is raised at it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Protocol

from retrysafe.model import BytesBody, Claim, Head, Request, Response
from retrysafe.operation.noted import Noted
from retrysafe.protocol.effects import Answered, Broken, Cancelled, Ended, Raised
from retrysafe.protocol.key import Key
from retrysafe.protocol.observing import Seen, Sight
from retrysafe.server.length import number_in
from retrysafe.server.routes import Route

COMPARED_BYTES_MAX = 1 << 20
"""Larger contents are not held, and so not compared."""


class Watch(Protocol):
    """What is done with what was seen: `server.observing.Watcher`."""

    def count(self, route: Route, sight: Sight) -> None:
        """One more of these."""

    def hold(self, size: int) -> bool:
        """Whether so many bytes of a content may be held besides all others; then they are, until let go."""

    def let_go(self, size: int) -> None:
        """So many bytes are held no longer."""

    def begin(self, sighting: Sighting, seen: Seen) -> bool:
        """Ask the store what the request is; False if it will not be asked."""

    def end(self, sighting: Sighting, ended: Ended) -> None:
        """Note in the store how it ended, once it is known what it is."""


class Sighting:
    """What is known of one request. It is counted once, as what it turns out to be.

    Args:
        watch: told of it.
        route: that it falls under.
        head: of the request.
        key: of the request.
        noted: what is said of it while it is handled.

    Attributes:
        claim: for the watch: what its end is to be noted with; None if it is no first attempt.
    """

    __slots__ = (
        "_account", "_ended", "_headers", "_held", "_is_over", "_noted", "_pieces", "_request", "_status", "_watch",
        "claim", "head", "key", "route", "size",
    )  # fmt: skip

    def __init__(self, watch: Watch, route: Route, head: Head, key: Key, noted: Noted) -> None:
        self.route = route
        self.head = head
        self.key = key
        self.claim: Claim | None = None
        self.size = 0
        self._watch = watch
        self._noted = noted
        self._account: str | None = None
        self._pieces: list[bytes] | None = []
        self._held = 0
        self._request: Request | None = None
        self._status: int | None = None
        self._headers: Iterable[Any] = ()
        self._ended: Ended | None = None
        self._is_over = False

    # --- what is told of it -----------------------------------------------------------------------

    def belongs_to(self, account: str | None) -> None:
        """Whose key it is; None if it is nobody's."""
        if not account:
            self._close(Sight.NO_SCOPE)
        elif not self._is_over:
            self._account = account
            self._begin()

    def take(self, piece: bytes) -> None:
        """The next piece of its content, as the handler gets it."""
        self.size += len(piece)
        if self._pieces is None or not piece:
            return
        if self.size > COMPARED_BYTES_MAX or not self._watch.hold(len(piece)):
            self.let_go()
            return
        self._held += len(piece)
        self._pieces.append(bytes(piece))

    def whole(self) -> None:
        """The handler has all of its content."""
        if self._is_over or self._request is not None:
            return
        if self.size > self.route.policy.request_bytes_max:
            self._close(Sight.TOO_LARGE)
        elif self._pieces is None:
            self._close(Sight.NOT_COMPARED)
        else:
            self._request = Request(self.head, BytesBody(b"".join(self._pieces)))
            self._pieces = None
            self._begin()

    def answer(self, status: int, headers: Iterable[Any]) -> None:
        """The head of its response as it goes out; of several the last."""
        self._status, self._headers = status, headers

    def end(self, failure: BaseException | None = None) -> None:
        """It is over: its response is complete, or its handler raised. Of several ends the first counts."""
        if self._ended is not None:
            return
        self._ended = self._end_by(failure)
        if self._request is None:
            self._close(Sight.TOO_LARGE if self._says_too_large() else Sight.NOT_COMPARED)
        elif self._account is not None and not self._is_over:
            self._is_over = True
            self._watch.end(self, self._ended)

    # --- what becomes of it -----------------------------------------------------------------------

    def let_go(self) -> None:
        """Its content is not needed any more."""
        self._pieces = None
        held, self._held = self._held, 0
        self._watch.let_go(held)

    def _begin(self) -> None:
        """Once it is whole and its account is known; its end may have come before that."""
        if self._request is None or self._account is None:
            return
        seen = Seen(self._request, self.key, self._account, self.route.policy, self.route.entry, os.urandom(16))
        self._request = Request(self.head, BytesBody())
        if not self._watch.begin(self, seen):
            self._close(Sight.LOST)  # and its end is not noted: nothing more may wait for a store that is too slow
        elif self._ended is not None:
            self._is_over = True
            self._watch.end(self, self._ended)

    def _close(self, sight: Sight) -> None:
        """Nothing further has to be known of it."""
        if not self._is_over:
            self._is_over = True
            self._watch.count(self.route, sight)
            self.let_go()

    def _says_too_large(self) -> bool:
        lengths = self.head.values(b"content-length")
        length = number_in(lengths[0]) if lengths else None
        return length is not None and length > self.route.policy.request_bytes_max

    def _end_by(self, failure: BaseException | None) -> Ended:
        if self._status is None:
            is_raised = failure is None or isinstance(failure, Exception)
            return Raised(self._noted.fate) if is_raised else Cancelled(self._noted.fate)
        if failure is not None:
            return Broken()
        response = Response(self._status, _locations(self._headers))
        return Answered(response, whole=True, size=0, digest=b"", fate=self._noted.fate)


def _locations(headers: Iterable[Any]) -> tuple[tuple[bytes, bytes], ...]:
    """Where a redirect leads: nothing else is judged of the fields. A malformed one is for the server to refuse."""
    with suppress(TypeError, ValueError, AttributeError):
        pairs = [(_bytes(name), _bytes(line)) for name, line in headers]
        return tuple((name, line) for name, line in pairs if name.lower() == b"location")
    return ()


def _bytes(text: str | bytes) -> bytes:
    return text.encode("latin-1", "replace") if isinstance(text, str) else bytes(text)
