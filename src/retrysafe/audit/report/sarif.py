"""The report for code scanning."""

from __future__ import annotations

from typing import Any

from retrysafe.audit.rules import RULES
from retrysafe.formats import sarif


def render(report: dict[str, Any]) -> str:
    """The document."""
    rules = [sarif.Rule(it.id, it.sentence, f"{it.why} ({it.source})", it.severity.value) for it in RULES]
    return sarif.document("retrysafe audit", rules, [_result(it) for it in report["findings"]])


def _result(finding: dict[str, Any]) -> sarif.Result:
    text = f"{finding['where']}: {finding['seen']}. Do: {finding['todo']}."
    return sarif.Result(
        finding["id"],
        finding["severity"],
        text,
        finding["where"],
        {"finding": finding["fingerprint"]},
        finding["file"] or "",
        finding["line"] or 0,
    )
