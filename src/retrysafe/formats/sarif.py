"""Findings for code scanning: SARIF 2.1.0."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


@dataclass(frozen=True, slots=True)
class Rule:
    """What is looked for.

    Attributes:
        id: stable.
        sentence: what must hold.
        why: it matters, and where that stands.
        level: `error` or `warning`.
    """

    id: str
    sentence: str
    why: str
    level: str


@dataclass(frozen=True, slots=True)
class Result:
    """What was found.

    Attributes:
        rule_id: of the rule.
        level: `error` or `warning`.
        text: what was found, and what to do.
        operation: method and address, or what else names the place.
        file: that has the place, relative to the root of the project; empty if none is known.
        line: in it, from 1; 0 if none is known.
        fingerprint: by name, what makes it the same finding in another run.
    """

    rule_id: str
    level: str
    text: str
    operation: str
    fingerprint: Mapping[str, str]
    file: str = ""
    line: int = 0


def document(tool: str, rules: Sequence[Rule], results: Sequence[Result]) -> str:
    """The document.

    Args:
        tool: that has looked.
        rules: everything that it looks for.
        results: what it has found.
    """
    driver = {"name": tool, "rules": [_rule(rule) for rule in rules]}
    run = {
        "tool": {"driver": driver}, "results": [_result(result) for result in results], "columnKind": "utf16CodeUnits"
    }  # fmt: skip
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.sentence},
        "fullDescription": {"text": rule.why},
        "defaultConfiguration": {"level": rule.level},
    }


def _result(result: Result) -> dict[str, Any]:
    location: dict[str, Any] = {"logicalLocations": [{"name": result.operation, "kind": "resource"}]}
    if result.file:
        location["physicalLocation"] = {"artifactLocation": {"uri": quote(result.file)}}
        if result.line:
            location["physicalLocation"]["region"] = {"startLine": result.line}
    return {
        "ruleId": result.rule_id,
        "level": result.level,
        "message": {"text": result.text},
        "locations": [location],
        "partialFingerprints": dict(result.fingerprint),
    }
