"""The report as a document; every other form of it is made from this one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from retrysafe.audit.audited import checked
from retrysafe.audit.fragment import Fragment
from retrysafe.audit.rule import Asked, Finding, Severity
from retrysafe.audit.silence import Heard
from retrysafe.audit.surface import Operation, Surface
from retrysafe.protocol.duration import iso8601

VERSION = 1


def document(surface: Surface, asked: Asked, heard: Heard, fragments: Sequence[Fragment]) -> dict[str, Any]:
    """The whole report as plain values."""
    counts = Counter(finding.severity for finding in heard.findings)
    operations = [_operation(it) for it in checked(surface, asked)]
    return {
        "version": VERSION,
        "target": surface.target,
        "kind": surface.kind.value,
        "operations": operations,
        "summary": {severity.value: counts[severity] for severity in Severity} | {"silenced": heard.silenced},
        "exit_code": exit_code(heard, len(operations)),
        "findings": [_finding(it) for it in heard.findings],
        "unseen": list(surface.unseen),
        "idle": heard.idle,
        "fragments": [_fragment(it) for it in fragments],
    }


def exit_code(heard: Heard, operations: int) -> int:
    """0 clean, 1 findings, 4 nothing was there to be checked."""
    if heard.findings:
        return 1
    return 0 if operations else 4


def _operation(operation: Operation) -> dict[str, Any]:
    policy, place = operation.policy, operation.evidence.place
    return {
        "route": operation.route,
        "place": str(place) if place else None,
        "protected": policy is not None,
        "required": policy is not None and policy.required,
        "lifetime": iso8601(policy.lifetime_ms) if policy is not None and operation.is_policy_known else None,
    }


def _finding(finding: Finding) -> dict[str, Any]:
    rule, found = finding.rule, finding.found
    return {
        "id": rule.id,
        "severity": finding.severity.value,
        "sentence": rule.sentence,
        "why": rule.why,
        "source": rule.source,
        "where": found.where,
        "file": found.place.file if found.place else None,
        "line": found.place.line or None if found.place else None,
        "seen": found.seen,
        "todo": found.todo,
        "fingerprint": finding.fingerprint,
    }


def _fragment(fragment: Fragment) -> dict[str, Any]:
    return {
        "put": fragment.put.value,
        "file": fragment.place.file if fragment.place else None,
        "line": fragment.place.line or None if fragment.place else None,
        "imports": list(fragment.imports),
        "text": fragment.text,
        "for": list(fragment.of),
    }
