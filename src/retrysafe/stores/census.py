"""Records and answers, counted one by one, for stores that cannot count by themselves."""

from __future__ import annotations

from retrysafe.model import State
from retrysafe.protocol.transitions import AnswerCount, RecordCount, Stats


class Census:
    """What was counted so far."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, State], tuple[int, int, int]] = {}
        self._answers: dict[str, tuple[int, int]] = {}

    def add_record(self, route: str, state: State, claimed_at_ms: int, response_bytes: int) -> None:
        """Count one record."""
        records, size_bytes, oldest_ms = self._records.get((route, state), (0, 0, claimed_at_ms))
        self._records[route, state] = records + 1, size_bytes + response_bytes, min(oldest_ms, claimed_at_ms)

    def add_answers(self, route: str, *, recorded: int = 0, replayed: int = 0) -> None:
        """Count some answers of one day."""
        before = self._answers.get(route, (0, 0))
        self._answers[route] = before[0] + recorded, before[1] + replayed

    def stats(self, now_ms: int) -> Stats:
        """All of it.

        Args:
            now_ms: the store's clock.
        """
        records = tuple(RecordCount(route, state, *sums) for (route, state), sums in sorted(self._records.items()))
        return Stats(now_ms, records, tuple(AnswerCount(route, *sums) for route, sums in sorted(self._answers.items())))
