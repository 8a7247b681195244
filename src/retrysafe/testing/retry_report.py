"""What a check of retries came to: for programs, for people, and as the failure of a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CaseOutcome:
    """What came of one case.

    Attributes:
        id: of the case; `retrysafe verify --list` shows them all.
        sentence: what must hold.
        severity: MUST, SHOULD or MAY: how binding it is under the profile.
        verdict: `pass`, `fail`, `warn`, `skip` or `inconclusive`. Only the first is a pass.
        reason: why it was not tried, or why nothing can be said.
        notes: what is worth knowing, and no finding.
        found: in full, what does not hold: what was sent and came, what was expected, why it matters, the source.
    """

    id: str
    sentence: str
    severity: str
    verdict: str
    reason: str = ""
    notes: tuple[str, ...] = ()
    found: str = ""

    def __str__(self) -> str:
        """In a line; why it was not tried, and what is worth knowing, in lines of their own."""
        first = f"{self.verdict:13} {self.id}  {self.sentence}"
        return "\n".join([first, *(f"{'':14}{text}" for text in (self.reason, *self.notes) if text)])


@dataclass(frozen=True, slots=True)
class RetryReport:
    """What the cases said of an application.

    Attributes:
        outcomes: of each case, in the order of the catalogue.
        is_protected: retrysafe's engine had the requests; else nothing could be made to happen inside it.
        requests: how many were sent that may have had an effect.
    """

    outcomes: tuple[CaseOutcome, ...]
    is_protected: bool
    requests: int

    def __getitem__(self, id_: str) -> CaseOutcome:
        """What came of the case with this id."""
        for outcome in self.outcomes:
            if outcome.id == id_:
                return outcome
        raise KeyError(id_)

    @property
    def passed(self) -> list[str]:
        """Ids of the cases that hold."""
        return self._ids("pass")

    @property
    def failed(self) -> list[str]:
        """Ids of the cases that must hold, and do not."""
        return self._ids("fail")

    @property
    def warned(self) -> list[str]:
        """Ids of the cases that should hold, and do not."""
        return self._ids("warn")

    @property
    def skipped(self) -> Mapping[str, str]:
        """Why the cases were not tried that were not, by their ids."""
        return {id_: self[id_].reason for id_ in self._ids("skip")}

    @property
    def inconclusive(self) -> Mapping[str, str]:
        """Why nothing can be said of the cases that were tried in vain, by their ids."""
        return {id_: self[id_].reason for id_ in self._ids("inconclusive")}

    def _ids(self, verdict: str) -> list[str]:
        return [outcome.id for outcome in self.outcomes if outcome.verdict == verdict]

    @property
    def total(self) -> str:
        """The sum, in one line."""
        counts = {verdict: len(self._ids(verdict)) for verdict in ("pass", "fail", "warn", "skip", "inconclusive")}
        return ", ".join([*(f"{count} {verdict}" for verdict, count in counts.items() if count), self._size])

    @property
    def _size(self) -> str:
        return f"{self.requests} request{'s' * (self.requests != 1)}"

    def __str__(self) -> str:
        """A line for each case, and the sum."""
        return "\n".join([*map(str, self.outcomes), self.total])


class NotSafeToRetry(AssertionError):
    """What was checked is not safe to retry, or nothing could be shown of it.

    Args:
        message: what was sent, what came, what was expected, why it matters, and where the rule stands.
        report: all of it.
    """

    def __init__(self, message: str, report: RetryReport) -> None:
        self.report = report
        super().__init__(message)
