"""Runs again what a report has findings of, and says of each whether it is fixed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrysafe.errors import ConfigurationError
from retrysafe.verify.case import Result
from retrysafe.verify.content import FORM, media_type
from retrysafe.verify.report.document import VERSION
from retrysafe.verify.template import fill
from retrysafe.verify.verdict import Verdict

_FOUND = {"fail", "warn"}


@dataclass(frozen=True, slots=True)
class Before:
    """What a report says.

    Attributes:
        ids: cases with findings.
        given: what the run was given, as far as it may stand in a report.
        credentials: names of fields that were credentials, which a report does not have.
    """

    ids: tuple[str, ...]
    given: Mapping[str, Any]
    credentials: tuple[str, ...]


def read(path: Path) -> Before:
    """What to run again.

    Raises:
        ConfigurationError: the file is no JSON report, or has no findings.
    """
    try:
        report = json.loads(path.read_text("utf-8"))
        if report["version"] != VERSION:
            raise ConfigurationError([f"--replay: {path} is a report of another version; make it anew"])
        ids = tuple(case["id"] for case in report["cases"] if case["verdict"] in _FOUND)
        before = Before(ids, _given(report), tuple(report["target"]["credentials"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError([f"--replay: {path} is no JSON report of verify: {error!r}"]) from None
    if not ids:
        raise ConfigurationError([f"--replay: {path} has no findings, so that there is nothing to run again"])
    return before


def _given(report: Mapping[str, Any]) -> dict[str, Any]:
    target = report["target"]
    operation = target["operation"]
    body = operation["body"] or ""
    return {
        "operation": f"{operation['method']} {operation['url']}",
        "form" if media_type(fill(body, "x")) == FORM else "json": body,
        "header": tuple(f"{name}: {value}" for name, value in operation["headers"]),
        "with_": {name: _text(each) for name, each in target["operations"].items()},
        "required": target["required"],
        "lease_s": target["lease_s"],
        "lifetime_s": target["lifetime_s"],
        "spare_field": target["spare_field"],
        "profile": report["profile"]["name"],
    }


def _text(operation: Mapping[str, Any]) -> str:
    return f"{operation['method']} {operation['url']} {operation['body'] or ''}".strip()


def compare(before: Before, results: Sequence[Result]) -> Iterator[str]:
    """One line for each case that had findings."""
    words = {
        Verdict.PASS: "fixed",
        Verdict.FAIL: "still failing",
        Verdict.WARN: "still failing",
        Verdict.SKIP: "not tried",
        Verdict.INCONCLUSIVE: "not settled",
    }
    for result in results:
        if result.case.id in before.ids:
            yield f"{words[result.verdict]}  {result.case.id}  {result.reason or result.case.sentence}"
