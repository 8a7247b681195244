"""The report as a document; every other form of it is made from this one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from retrysafe.verify.case import Result
from retrysafe.verify.probe import Run
from retrysafe.verify.report.curl import body_text, curl, shown
from retrysafe.verify.runner import exit_code
from retrysafe.verify.verdict import Step, Verdict

VERSION = 1
_STEPS_SHOWN = 4


def document(run: Run, results: Sequence[Result], *, strict: bool = False) -> dict[str, Any]:
    """The whole report as plain values."""
    verdicts = Counter(result.verdict for result in results)
    return {
        "version": VERSION,
        "run": run.id,
        "target": target_of(run),
        "profile": {"name": run.profile.name, "title": run.profile.title},
        "requests": run.sent,
        "strict": strict,
        "exit_code": exit_code(results, strict=strict),
        "summary": {verdict.name.lower(): verdicts[verdict] for verdict in Verdict},
        "cases": [case_of(result) for result in results],
    }


def target_of(run: Run) -> dict[str, Any]:
    """What was verified, without credentials; enough to verify it again."""
    target = run.target
    return {
        "operation": _operation(target.operation),
        "operations": {name: _operation(each) for name, each in target.operations.items()},
        "credentials": sorted(target.secret_fields),
        "effects": target.counter is not None,
        "hooks": sorted(target.hooks),
        "required": target.required,
        "lease_s": target.lease_s,
        "lifetime_s": target.lifetime_s,
        "spare_field": target.spare_field,
    }


def _operation(operation: Any) -> dict[str, Any]:
    return {
        "method": operation.method,
        "url": operation.url,
        "body": operation.body,
        "headers": [list(field) for field in operation.headers],
    }


def case_of(result: Result) -> dict[str, Any]:
    """One case and what came of it. What was sent stands only where something was found."""
    case = result.case
    found = bool(result.findings)
    return {
        "id": case.id,
        "group": case.group,
        "sentence": case.sentence,
        "severity": result.severity.value,
        "source": case.source,
        "why": case.why,
        "verdict": result.verdict.name.lower(),
        "reason": result.reason,
        "findings": [
            {"severity": each.severity.value, "expected": each.expected, "seen": each.seen} for each in result.findings
        ],
        "notes": list(result.notes),
        "took_s": round(result.took_s, 3),
        "steps": [step_of(step) for step in (result.steps[-_STEPS_SHOWN:] if found else ())],
    }


def step_of(step: Step) -> dict[str, Any]:
    """One exchange, without credentials."""
    sent, answer = step.sent, step.answer
    return {
        "curl": curl(sent),
        "sent": {
            "method": sent.method,
            "url": sent.url,
            "headers": [[name, shown(name, value, sent)] for name, value in sent.headers],
            "body": body_text(sent.body),
        },
        "answer": {
            "status": answer.status,
            "headers": [list(field) for field in answer.headers if field[0].lower() != "set-cookie"],
            "body": body_text(answer.body),
            "whole": answer.whole,
        },
    }
