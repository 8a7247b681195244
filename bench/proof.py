"""Does it do what is measured? Asked before, and after, each measurement: a broken build must not win."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from threading import Barrier
from typing import Self

from bench.bare import ANSWER, SLOW_PATH
from bench.load import BODY, Keys, Load, SpoiltError
from bench.servers import Server

_OTHER_BODY = BODY.replace(b"1250", b"9999")
_AT_ONCE = 50
_PATIENCE_S = 20


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one POST."""

    status: int
    replayed: bool
    content: bytes

    @property
    def right(self) -> bool:
        """Whether it is what the handler answers; a framework may have spelt its JSON in its own way."""
        return self.status == 201 and json.loads(self.content) == json.loads(ANSWER)

    def __str__(self) -> str:
        return f"{self.status}, {len(self.content)} bytes{', as a replay' if self.replayed else ''}"


class Client:
    """One connection to a server, for one account; a context manager."""

    def __init__(self, server: Server, account: str = "acct_1") -> None:
        self._connection = HTTPConnection("127.0.0.1", server.port, timeout=_PATIENCE_S)
        self._account = account

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def post(self, key: str, body: bytes = BODY, path: str = "/charges") -> Answer:
        """Send what post.lua sends, with that key, which is quoted if it is to be."""
        headers = {"Content-Type": "application/json", "X-Account-Id": self._account, "Idempotency-Key": key}
        self._connection.request("POST", path, body, headers)
        answer = self._connection.getresponse()
        return Answer(answer.status, answer.getheader("Idempotent-Replayed") == "true", answer.read())

    def runs(self) -> int:
        """How often the handler has run, if the application is behind this connection."""
        self._connection.request("GET", "/runs")
        return int(self._connection.getresponse().read())


def runs(application: Server) -> int:
    """How often the handler of that application has run."""
    with Client(application) as client:
        return client.runs()


def failed_checks(front: Server, application: Server, *, ours: bool, quoted: bool) -> Iterator[str]:
    """What does not hold of something that makes requests safe to retry; nothing, if all does.

    Args:
        front: what is checked.
        application: where its handler counts its runs.
        ours: it is to keep our contract, and not only what any such thing must.
        quoted: how it is sent keys.
    """
    for name, check in _CHECKS.items():
        ran = runs(application)
        (key,) = Keys(ring=1, quoted=quoted).all()
        try:
            seen, expected = check(front, key, ours=ours)
        except (HTTPException, OSError, ValueError) as error:
            yield f"{name}: {type(error).__name__}"
            continue
        if (count := runs(application) - ran) != expected:
            yield f"{name}: it ran {count} times, expected {expected}"
        elif seen:
            yield f"{name}: {seen}"


# Each check says what was wrong, if anything, and how often the handler should have run.


def _retry(front: Server, key: str, *, ours: bool) -> tuple[str, int]:
    with Client(front) as client:
        first, retry = client.post(key), client.post(key)
    if not first.right or first.replayed:
        return f"the first was answered {first}", 1
    if (retry.status, retry.content) != (first.status, first.content):
        return "the same JSON in other bytes" if retry.right else f"answered {retry}; the first was {first}", 1
    return "it is not said to be a replay" if ours and not retry.replayed else "", 1


def _other_body(front: Server, key: str, *, ours: bool) -> tuple[str, int]:
    with Client(front) as client:
        client.post(key)
        other = client.post(key, _OTHER_BODY)
    refused = other.status == 422 if ours else other.status >= 400
    return "" if refused else f"answered {other}", 1


def _at_once(front: Server, key: str, *, ours: bool) -> tuple[str, int]:
    together = Barrier(_AT_ONCE)

    def post(_: int) -> Answer:
        with Client(front) as client:
            client.runs()  # so that it is connected
            together.wait(_PATIENCE_S)
            return client.post(key, path=SLOW_PATH)

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        answers = list(threads.map(post, range(_AT_ONCE)))
    odd = [answer for answer in answers if not answer.right and (ours and answer.status != 409)]
    if odd or not any(answer.right for answer in answers):
        return f"answered {(odd or answers)[0]}", 1
    return "", 1


def _other_account(front: Server, key: str, *, ours: bool) -> tuple[str, int]:  # noqa: ARG001 - as the others
    with Client(front) as one, Client(front, "acct_2") as two:
        one.post(key)
        other = two.post(key)
    return "" if other.right and not other.replayed else f"answered {other}", 2


_CHECKS = {
    "a retry has the same bytes": _retry,
    "another body is refused": _other_body,
    f"{_AT_ONCE} at once run it once": _at_once,
    "accounts do not share": _other_account,
}


def prove_unprotected(front: Server, application: Server) -> None:
    """The same request runs each time, and nothing claims to be a replay.

    Raises:
        SpoiltError: it is not so.
    """
    (key,) = Keys(ring=1).all()
    ran = runs(application)
    with Client(front) as client:
        for _ in range(2):
            _expect_first(client.post(key))
    if (count := runs(application) - ran) != 2:
        raise SpoiltError(f"the handler ran {count} times for two requests")


def record_all(front: Server, keys: Keys) -> None:
    """Send each key of the ring once, so that all that follow are replays."""
    with Client(front) as client:
        for key in keys.all():
            _expect_first(client.post(key))


def prove_runs(count: int, load: Load, *, replays: bool, concurrency: int) -> None:
    """The handler ran once for each first request, and never for a replay.

    Requests that wrk dropped when its time was up may have run too: at most one for each connection
    of this run, and of the one that warmed up. Those that failed may have run or not.

    Raises:
        SpoiltError: it is not so.
    """
    least, most = (0, 0) if replays else (load.requests - load.failed, load.requests + load.failed + 2 * concurrency)
    if not least <= count <= most:
        raise SpoiltError(f"the handler ran {count} times for {load.requests} answers, expected {least} to {most}")


def _expect_first(seen: Answer) -> None:
    if not seen.right or seen.replayed:
        raise SpoiltError(f"a first request was answered {seen}")
