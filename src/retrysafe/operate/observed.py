"""What was observed: what protection would have done, and so have saved, by route."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from retrysafe.model import State
from retrysafe.protocol.duration import rfc3339
from retrysafe.protocol.observing import COUNTS_ROUTE, RouteCounts, Sight, added, decoded
from retrysafe.protocol.transitions import DAY_MS, Listed, ListRecords, ReadDetails
from retrysafe.stores.contract import Store

_PAGE = 500
_DUPLICATES = (Sight.IN_FLIGHT, Sight.REPLAYED, Sight.EXPIRED)
_UNKEYED = (Sight.MISSING, Sight.MALFORMED)
_COMPARED = (Sight.FIRST, *_DUPLICATES, Sight.MISMATCH)

# What each is, and what it would have got under protection, in the order in which it is told.
_WORDS = {
    Sight.FIRST: "first attempts, which run",
    Sight.REPLAYED: "duplicates once the first attempt had ended, to be replayed",
    Sight.IN_FLIGHT: "duplicates before that, to be refused or made to wait",
    Sight.EXPIRED: "duplicates after the lifetime, to be refused",
    Sight.MISMATCH: "other requests under a used key, to be refused",
    Sight.MISSING: "without a key, unprotected or to be refused",
    Sight.MALFORMED: "malformed keys, to be refused",
    Sight.NO_SCOPE: "with a key and no account, to be refused",
    Sight.TOO_LARGE: "larger than request_bytes_max, to be refused",
    Sight.NOT_COMPARED: "not compared, because the content was too large to hold or was not read to its end",
    Sight.LOST: "lost, because the store was away or too much waited for it",
}


def take_observed(store: Store, days: int) -> tuple[RouteCounts, ...]:
    """The counts of every process, by route.

    Args:
        store: opened.
        days: of records of counts that were begun in the last so many; a process begins one a day.

    Raises:
        StoreError: the store failed, or a newer release wrote the counts in another form.
    """
    counted: list[RouteCounts] = []
    for record_id in {listed.record_id for listed in _listed(store, days)}:  # a store may list a record twice
        journal = store.perform(ReadDetails(record_id)).journal
        counted.extend(decoded(journal) if journal else ())
    return added(counted)


def _listed(store: Store, days: int) -> Iterator[Listed]:
    after: bytes | None = b""
    while after is not None:
        page = store.perform(ListRecords(tuple(State), COUNTS_ROUTE, after, _PAGE))
        begun_ms = page.now_ms - days * DAY_MS
        yield from (listed for listed in page.records if listed.record.created_at_ms > begun_ms)
        after = page.next_after


def document(routes: tuple[RouteCounts, ...]) -> dict[str, Any]:
    """What was observed, as JSON has it."""
    return {
        "requests": sum(route.requests for route in routes),
        "duplicates": sum(route.of(*_DUPLICATES) for route in routes),
        "lost": sum(route.of(Sight.LOST) for route in routes),
        "routes": [_route(route) for route in routes],
    }


def _route(route: RouteCounts) -> dict[str, Any]:
    return {
        "route": route.route,
        "requests": route.requests,
        "keyed": _keyed(route),
        **{sight.value: route.of(sight) for sight in Sight},
        "duplicates": route.of(*_DUPLICATES),
        "duplicate_rate": _rate(route),
        "first_seen": rfc3339(route.first_seen_ms),
        "last_seen": rfc3339(route.last_seen_ms),
    }


def _keyed(route: RouteCounts) -> int:
    return route.requests - route.of(*_UNKEYED)


def _rate(route: RouteCounts) -> float | None:
    """Duplicates among the requests that were compared; None if none was."""
    compared = route.of(*_COMPARED)
    return round(route.of(*_DUPLICATES) / compared, 4) if compared else None


def lines(routes: tuple[RouteCounts, ...], days: int) -> Iterator[str]:
    """What was observed, for people.

    Args:
        routes: as taken.
        days: that it is of.
    """
    if not routes:
        yield f"nothing was observed in {days} days"
        return
    found = document(routes)
    again = found["duplicates"]
    yield f"observed in {days} days: {_times(found['requests'], 'request')}, {_times(again, 'duplicate')}"
    yield f"protection would have kept {_times(again, 'request')} from running again"
    for route in routes:
        yield f"{route.route}: {_times(route.requests, 'request')}, {_keyed(route)} with a key, {_share(route)}"
        yield f"  seen from {rfc3339(route.first_seen_ms)} to {rfc3339(route.last_seen_ms)}"
        yield from (f"  {words}: {route.of(sight)}" for sight, words in _WORDS.items() if route.of(sight))


def _share(route: RouteCounts) -> str:
    rate = _rate(route)
    return "none compared" if rate is None else f"{rate:.2%} of those compared are duplicates"


def _times(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
