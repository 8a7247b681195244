"""What is in a store: how much, of which routes, how old, and how much of it was replayed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from retrysafe.model import State
from retrysafe.protocol.observing import is_observed
from retrysafe.protocol.transitions import AnswerCount, RecordCount, Stats

NO_ROUTE = "(not kept)"  # records of a release that did not keep the route


def document(stats: Stats) -> dict[str, Any]:
    """The statistics as JSON has them; without the records of what is only observed."""
    stats = Stats(stats.now_ms, tuple(it for it in stats.records if not is_observed(it.route)), stats.answers)
    routes = sorted({count.route for count in stats.records} | {count.route for count in stats.answers})
    return {
        "now_ms": stats.now_ms,
        **_sums(stats.records),
        "replay_rate": _replay_rate(stats.answers),
        "oldest_in_progress_s": _oldest_s(stats, State.IN_PROGRESS),
        "oldest_unknown_s": _oldest_s(stats, State.UNKNOWN),
        "routes": [_route(stats, route) for route in routes],
    }


def _route(stats: Stats, route: str) -> dict[str, Any]:
    records = [count for count in stats.records if count.route == route]
    answers = [count for count in stats.answers if count.route == route]
    return {
        "route": route,
        "states": {count.state.value: _sums([count]) for count in records},
        "recorded": sum(count.recorded for count in answers),
        "replayed": sum(count.replayed for count in answers),
        "replay_rate": _replay_rate(answers),
    }


def _sums(counts: Sequence[RecordCount]) -> dict[str, int]:
    return {
        "records": sum(count.records for count in counts),
        "response_bytes": sum(count.response_bytes for count in counts),
    }


def _replay_rate(counts: Sequence[AnswerCount]) -> float | None:
    """Replays among the answers; None if there was none."""
    replayed = sum(count.replayed for count in counts)
    answered = replayed + sum(count.recorded for count in counts)
    return round(replayed / answered, 4) if answered else None


def _oldest_s(stats: Stats, state: State) -> int | None:
    """How long ago the oldest of these records was claimed; None if there is none."""
    claims_ms = [count.oldest_claim_ms for count in stats.records if count.state is state]
    return (stats.now_ms - min(claims_ms)) // 1_000 if claims_ms else None


def lines(stats: Stats, days: int) -> Iterator[str]:
    """The statistics for people.

    Args:
        stats: as taken.
        days: that its answers are of.
    """
    found = document(stats)
    yield f"{_records(found)}, {found['response_bytes']} bytes of responses"
    yield f"answers of {days} days: {_percent(found['replay_rate'])}"
    yield f"oldest in progress: {_age(found['oldest_in_progress_s'])}"
    yield f"oldest unknown: {_age(found['oldest_unknown_s'])}"
    for route in found["routes"]:
        yield f"{route['route'] or NO_ROUTE}: {_percent(route['replay_rate'])}"
        for state, sums in route["states"].items():
            yield f"  {state}: {_records(sums)}, {sums['response_bytes']} bytes"


def _percent(rate: float | None) -> str:
    return "none counted" if rate is None else f"{rate:.2%} replayed"


def _age(age_s: int | None) -> str:
    return "none" if age_s is None else f"{age_s} s"


def _records(sums: dict[str, Any]) -> str:
    return f"{sums['records']} record{'' if sums['records'] == 1 else 's'}"
