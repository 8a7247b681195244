"""Before anything is measured: does it do what is measured? A broken build must not win."""

from __future__ import annotations

from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Self

from bench.bare import ANSWER
from bench.load import BODY, Keys, Load, SpoiltError
from bench.servers import Server

_OTHER_BODY = BODY.replace(b"1250", b"9999")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one POST."""

    status: int
    replayed: bool
    content: bytes


class Client:
    """One connection to a server; a context manager."""

    def __init__(self, server: Server) -> None:
        self._connection = HTTPConnection("127.0.0.1", server.port, timeout=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def post(self, key: str, body: bytes = BODY) -> Answer:
        """Send what post.lua sends, with that key."""
        headers = {"Content-Type": "application/json", "X-Account-Id": "acct_1", "Idempotency-Key": f'"{key}"'}
        self._connection.request("POST", "/charges", body, headers)
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


def prove_protected(front: Server, application: Server) -> None:
    """A second request is a replay and does not run; a second body is refused.

    Raises:
        SpoiltError: it is not so.
    """
    (key,) = Keys(ring=1).all()
    ran = runs(application)
    with Client(front) as client:
        _expect("a first request", client.post(key), Answer(201, replayed=False, content=ANSWER))
        _expect("its retry", client.post(key), Answer(201, replayed=True, content=ANSWER))
        refused = client.post(key, _OTHER_BODY)
    if refused.status != 422:
        raise SpoiltError(f"a used key with another body was answered {refused.status}, expected 422")
    if (count := runs(application) - ran) != 1:
        raise SpoiltError(f"the handler ran {count} times for one key, expected once")


def prove_unprotected(front: Server, application: Server) -> None:
    """The same request runs each time, and nothing claims to be a replay.

    Raises:
        SpoiltError: it is not so.
    """
    (key,) = Keys(ring=1).all()
    ran = runs(application)
    with Client(front) as client:
        for _ in range(2):
            _expect("a request", client.post(key), Answer(201, replayed=False, content=ANSWER))
    if (count := runs(application) - ran) != 2:
        raise SpoiltError(f"the handler ran {count} times for two requests")


def record_all(front: Server, keys: Keys) -> None:
    """Send each key of the ring once, so that all that follow are replays."""
    with Client(front) as client:
        for key in keys.all():
            _expect("a first request", client.post(key), Answer(201, replayed=False, content=ANSWER))


def prove_runs(count: int, load: Load, *, replays: bool, concurrency: int) -> None:
    """The handler ran once for each first request, and never for a replay.

    Requests that wrk dropped when its time was up may have run too: at most one for each connection
    of this run, and of the one that warmed up.

    Raises:
        SpoiltError: it is not so.
    """
    least, most = (0, 0) if replays else (load.requests, load.requests + 2 * concurrency)
    if not least <= count <= most:
        raise SpoiltError(f"the handler ran {count} times for {load.requests} answers, expected {least} to {most}")


def _expect(what: str, seen: Answer, expected: Answer) -> None:
    if seen != expected:
        raise SpoiltError(f"{what} was answered {seen}, expected {expected}")
