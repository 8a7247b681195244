"""How a case ends, and what it leaves behind."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from retrysafe.verify.message import Answer, Sent


class Severity(StrEnum):
    """How binding a requirement is (BCP 14)."""

    MUST = "MUST"
    SHOULD = "SHOULD"
    MAY = "MAY"


MUST, SHOULD, MAY = Severity


class Verdict(StrEnum):
    """What came of a case. Only the first is a pass."""

    PASS = "pass"  # noqa: S105 - a verdict
    FAIL = "FAIL"
    WARN = "warn"
    SKIP = "skip"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Finding:
    """One expectation that did not hold."""

    severity: Severity
    expected: str
    seen: str


@dataclass(frozen=True, slots=True)
class Step:
    """One exchange of a case."""

    sent: Sent
    answer: Answer


class Skipped(Exception):
    """The case cannot be tried here; the message says why."""


class Inconclusive(Exception):
    """The case was tried and nothing can be said; the message says why."""


class Stopped(Exception):
    """A finding that makes the rest of a case pointless."""
