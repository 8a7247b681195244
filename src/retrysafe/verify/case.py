"""What a case is: one requirement with a stable id, and the function that tries it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from retrysafe.verify.probe import Probe
from retrysafe.verify.verdict import Finding, Severity, Step, Verdict

Trial = Callable[[Probe], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Case:
    """One requirement.

    Attributes:
        id: stable; a number is never given twice.
        sentence: what must hold.
        severity: how binding it is; a profile may raise it.
        source: where it stands.
        why: what happens to users of an API that breaks it.
        needs: what the operator has to offer; without one of these the case is skipped.
        core: runs without `--all`.
        alone: changes the target for everybody, so that nothing else runs meanwhile.
        run: tries it.
    """

    id: str
    sentence: str
    severity: Severity
    source: str
    why: str
    needs: tuple[str, ...]
    core: bool
    alone: bool
    run: Trial

    @property
    def group(self) -> str:
        """The part of the id that is a word."""
        return self.id.partition("-")[0]


GROUPS = {
    "SYN": "Syntax and presence",
    "REP": "First execution and replay",
    "FPR": "Fingerprint and reuse",
    "CON": "Concurrency",
    "OUT": "Outcomes and failures",
    "MTH": "Methods and routing",
    "TTL": "Retention",
    "SEC": "Security",
    "DOC": "Errors, discovery, status",
}


class Group:
    """Collects the cases of one module, in order."""

    def __init__(self) -> None:
        self.cases: list[Case] = []

    def case(  # noqa: PLR0913 - each is a column of the catalogue
        self,
        id_: str,
        severity: Severity,
        source: str,
        why: str,
        *,
        needs: Sequence[str] = (),
        core: bool = False,
        alone: bool = False,
    ) -> Callable[[Trial], Trial]:
        """Make a function a case; its docstring is the sentence."""

        def add(run: Trial) -> Trial:
            sentence = " ".join((run.__doc__ or "").split())
            self.cases.append(Case(id_, sentence, severity, source, why, tuple(needs), core, alone, run))
            return run

        return add


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one case.

    Attributes:
        case: which.
        severity: of the case under the profile.
        verdict: what came of it.
        reason: why it was skipped or is inconclusive.
        findings: what did not hold.
        notes: what is worth knowing, and no finding.
        steps: the exchanges, the last ones if there were many.
        took_s: how long it took.
    """

    case: Case
    severity: Severity
    verdict: Verdict
    reason: str = ""
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    took_s: float = 0.0
