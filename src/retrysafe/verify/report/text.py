"""The report for a terminal: a line for each case as it ends, then each finding in full, then the sum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from retrysafe.verify.case import GROUPS, Case, Result
from retrysafe.verify.probe import Run
from retrysafe.verify.report.document import case_of
from retrysafe.verify.verdict import Verdict

_SENTENCE_WIDTH = 88
_STYLES = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.WARN: "yellow"}
_TITLES = {
    Verdict.PASS: "passed",
    Verdict.FAIL: "failed",
    Verdict.WARN: "warned",
    Verdict.SKIP: "skipped",
    Verdict.INCONCLUSIVE: "inconclusive",
}


def heading(run: Run) -> Iterator[str]:
    """What is about to happen."""
    operation, profile = run.target.operation, run.profile
    yield f"target   {operation.method} {operation.url}"
    yield f"profile  {profile.name}" + (f": {profile.title}" if profile.title else "")
    yield f"effects  {run.target.counter.text.partition(' ')[0] if run.target.counter else 'not counted: --effects'}"
    yield f"run      {run.id}: every reference that this run leaves behind has it"


def line(result: Result) -> str:
    """One case in one line; what was found, or why it was not tried, in the next."""
    verdict = result.verdict.value.ljust(len(Verdict.INCONCLUSIVE.value))
    first = f"{verdict}  {result.case.id}  {result.case.sentence}"
    if result.findings:
        finding = result.findings[0]
        return f"{first}\n{'':14}expected {finding.expected}; seen {finding.seen}"
    return "\n".join([first, *(f"{'':14}{text}" for text in (result.reason, *result.notes) if text)])


def style(result: Result) -> str:
    """The colour of a case."""
    return _STYLES.get(result.verdict, "dim")


def finding(result: Result) -> Iterator[str]:
    """A finding in full."""
    case = case_of(result)
    yield f"{result.verdict.value}  {result.case.id}  {result.case.sentence}"
    yield f"  why it matters  {case['why']}"
    yield f"  source          {case['source']} ({case['severity']})"
    for each in case["findings"]:
        yield f"  expected        {each['expected']}"
        yield f"  seen            {each['seen']}"
    for number, step in enumerate(case["steps"], start=1):
        yield from _step(number, step)


def _step(number: int, step: dict[str, Any]) -> Iterator[str]:
    answer = step["answer"]
    yield f"  {number}. sent         {step['curl']}"
    status = answer["status"] or "no answer"
    yield f"     came         {status} {answer['body'][:200]}".rstrip()


def total(results: Sequence[Result], run: Run) -> str:
    """The sum, in one line."""
    counts = {verdict: sum(result.verdict is verdict for result in results) for verdict in Verdict}
    parts = [f"{count} {_TITLES[verdict]}" for verdict, count in counts.items() if count]
    return f"{', '.join(parts)}; {run.sent} request{'' if run.sent == 1 else 's'}"


def catalogue(cases: Sequence[Case]) -> Iterator[str]:
    """Every case, by group."""
    for group, title in GROUPS.items():
        members = [case for case in cases if case.group == group]
        if members:
            yield f"{title}"
        for case in members:
            needs = f"  [{', '.join(case.needs)}]" if case.needs else ""
            yield f"  {case.id}  {case.severity.value.ljust(6)}  {case.sentence}{needs}"
