"""The report for code scanning."""

from __future__ import annotations

from typing import Any

from retrysafe.formats import sarif

_LEVELS = {"fail": "error", "warn": "warning"}


def render(report: dict[str, Any]) -> str:
    """The document."""
    rules = [
        sarif.Rule(
            case["id"],
            case["sentence"],
            f"{case['why']} ({case['source']})",
            "error" if case["severity"] == "MUST" else "warning",
        )
        for case in report["cases"]
    ]
    results = [_result(case, report) for case in report["cases"] if case["verdict"] in _LEVELS]
    return sarif.document("retrysafe verify", rules, results)


def _result(case: dict[str, Any], report: dict[str, Any]) -> sarif.Result:
    found = "; ".join(f"expected {each['expected']}, seen {each['seen']}" for each in case["findings"])
    operation = report["target"]["operation"]
    place = f"{operation['method']} {operation['url']}"
    text = f"{case['sentence']} {found}."
    return sarif.Result(case["id"], _LEVELS[case["verdict"]], text, place, {"case": case["id"]})
