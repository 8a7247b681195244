"""The report for CI: a test case for each case. What was not tried is skipped there too."""

from __future__ import annotations

import re
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(report: dict[str, Any]) -> str:
    """The XML document."""
    cases = report["cases"]
    failed = [case for case in cases if _fails(case, strict=report["strict"])]
    skipped = [case for case in cases if case["verdict"] in {"skip", "inconclusive"}]
    counts = {"tests": str(len(cases)), "failures": str(len(failed)), "skipped": str(len(skipped)), "errors": "0"}
    suites = Element("testsuites", counts)
    suite = SubElement(suites, "testsuite", {"name": f"retrysafe verify ({report['profile']['name']})", **counts})
    for case in cases:
        _add(suite, case, strict=report["strict"])
    return '<?xml version="1.0" encoding="utf-8"?>\n' + tostring(suites, encoding="unicode") + "\n"


def _fails(case: dict[str, Any], *, strict: bool) -> bool:
    return case["verdict"] == "fail" or (strict and case["verdict"] == "warn")


def _add(suite: Element, case: dict[str, Any], *, strict: bool) -> None:
    name = f"{case['id']} {case['sentence']}"
    element = SubElement(
        suite, "testcase", {"classname": f"verify.{case['group']}", "name": name, "time": str(case["took_s"])}
    )
    text = _text(case)
    if _fails(case, strict=strict):
        SubElement(element, "failure", {"message": _clean(case["findings"][0]["seen"])}).text = text
    elif case["verdict"] in {"skip", "inconclusive"}:
        SubElement(element, "skipped", {"message": _clean(f"{case['verdict']}: {case['reason']}")})
    elif text:
        SubElement(element, "system-out").text = text


def _text(case: dict[str, Any]) -> str:
    lines = [f"expected {each['expected']}; seen {each['seen']}" for each in case["findings"]]
    lines += [f"why it matters: {case['why']}", f"source: {case['source']}"] if lines else []
    return _clean("\n".join([*lines, *case["notes"], *(step["curl"] for step in case["steps"])]))


def _clean(text: str) -> str:
    """Without what no XML document may have."""
    return _NO_XML.sub("?", text)
