"""What is counted instead of timed: round trips a request, and bytes a record."""

from __future__ import annotations

from collections.abc import Callable

from bench import load, proof
from bench.engines import Database
from bench.load import Keys
from bench.servers import Server

_REQUESTS = 200  # on one connection, one after the other
_WARM_UP = 20
RESPONSE_BYTES = 500
_RECORDS_MIN = 20_000


def trips(database: Database, front: Server, *, replays: bool) -> float:
    """Round trips of a request to the store, after `count_trips`.

    Asking for the count may be counted too, so that it is asked for twice first.
    """
    warm_up, keys = Keys(_WARM_UP), Keys(_REQUESTS)
    proof.record_all(front, warm_up)
    send = _sender(front, keys)
    if replays:
        send()
    before = database.trips()
    asking = (again := database.trips()) - before
    send()
    return (database.trips() - again - asking) / _REQUESTS


def _sender(front: Server, keys: Keys) -> Callable[[], None]:
    def send() -> None:
        with proof.Client(front) as client:
            for key in keys.all():
                if not (answer := client.post(key)).right:
                    raise load.SpoiltError(f"a request was answered {answer}")

    return send


def fill(front: Server, *, concurrency: int, seconds: int) -> None:
    """Make many records with first requests.

    Raises:
        SpoiltError: one failed.
    """
    sent = 0
    while sent < _RECORDS_MIN:
        seen = load.fire(front.url, keys=Keys(), concurrency=concurrency, seconds=seconds)
        if seen.failed:
            raise load.SpoiltError(f"{seen.failed} of {seen.requests} requests failed")
        sent += seen.requests
