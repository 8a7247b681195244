"""The report for code scanning: SARIF 2.1.0."""

from __future__ import annotations

import json
from typing import Any

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {"fail": "error", "warn": "warning"}


def render(report: dict[str, Any]) -> str:
    """The document."""
    rules = [
        {
            "id": case["id"],
            "shortDescription": {"text": case["sentence"]},
            "fullDescription": {"text": f"{case['why']} ({case['source']})"},
            "defaultConfiguration": {"level": "error" if case["severity"] == "MUST" else "warning"},
        }
        for case in report["cases"]
    ]
    results = [_result(case, report) for case in report["cases"] if case["verdict"] in _LEVELS]
    tool = {"driver": {"name": "retrysafe verify", "rules": rules}}
    run = {"tool": tool, "results": results, "columnKind": "utf16CodeUnits"}
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _result(case: dict[str, Any], report: dict[str, Any]) -> dict[str, Any]:
    found = "; ".join(f"expected {each['expected']}, seen {each['seen']}" for each in case["findings"])
    operation = report["target"]["operation"]
    place = {"name": f"{operation['method']} {operation['url']}", "kind": "resource"}
    return {
        "ruleId": case["id"],
        "level": _LEVELS[case["verdict"]],
        "message": {"text": f"{case['sentence']} {found}."},
        "locations": [{"logicalLocations": [place]}],
        "partialFingerprints": {"case": case["id"]},
    }
