"""The report for a terminal: what is wrong, where, and what to do; errors first."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

_HOW = {
    "before": "put this before the line",
    "instead": "put this in place of the line",
    "end": "put this at the end of the file",
    "argument": "give this to the door, as an argument",
    "table": "put this into the routes table of the door; it takes the place of an entry of the same name",
    "merge": "put this into the document, in place of what it has under the same names",
    "file": "put this into the settings file of the gateway",
    "remove": "remove this",
}


def lines(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each line with its severity, which is its colour; empty for none."""
    count = len(report["operations"])
    protected = sum(it["protected"] for it in report["operations"])
    yield f"target   {report['target']} ({report['kind']})", ""
    yield (
        f"checked  {count} operation{'' if count == 1 else 's'} that could do something twice; {protected} protected",
        "",
    )
    for unseen in report["unseen"]:
        yield f"unseen   {unseen}", "warning"
    for (severity, id_), group in groupby(report["findings"], key=lambda it: (it["severity"], it["id"])):
        found = list(group)
        yield "", ""
        yield f"{severity}  {id_}  {found[0]['sentence']}", severity
        yield f"  why it matters  {found[0]['why']} ({found[0]['source']})", ""
        for each in found:
            yield from ((line, "") for line in _finding(each))
    yield "", ""
    yield _total(report), ""


def _finding(finding: dict[str, Any]) -> Iterator[str]:
    yield f"  {finding['where']}{f'  {_place(finding)}' if finding['file'] else ''}"
    yield f"    seen  {finding['seen']}"
    yield f"    do    {finding['todo']}"


def _place(found: dict[str, Any]) -> str:
    return f"{found['file']}:{found['line']}" if found["line"] else f"{found['file']}"


def _total(report: dict[str, Any]) -> str:
    summary = report["summary"]
    parts = [
        f"{summary[name]} {name}{'' if summary[name] == 1 else 's'}" for name in ("error", "warning") if summary[name]
    ]
    said = ", ".join(parts)
    if not said:
        said = (
            "clean"
            if report["operations"]
            else "nothing to check: no operation that could do something twice was found"
        )
    said += f"; {summary['silenced']} silenced" if summary["silenced"] else ""
    return f"{said}; --fix prints what to add" if parts else said


def fragment_lines(report: dict[str, Any]) -> Iterator[str]:
    """What to paste, each piece with what it is for and where it goes."""
    for fragment in report["fragments"]:
        where = f"{_place(fragment)}: " if fragment["file"] else ""
        yield f"# {', '.join(fragment['for'])}"
        yield f"# {where}{_HOW[fragment['put']]}"
        yield from fragment["imports"]
        yield from fragment["text"].splitlines()
        yield ""


def annotation_lines(report: dict[str, Any]) -> Iterator[str]:
    """A workflow command of GitHub for each finding, which review tools show beside the line."""
    for finding in report["findings"]:
        place = [f"file={_property(finding['file'])}"] if finding["file"] else []
        place += [f"line={finding['line']}"] if finding["line"] else []
        properties = ",".join([*place, f"title={_property(finding['id'] + ' ' + finding['where'])}"])
        yield f"::{finding['severity']} {properties}::{_message(_sentence(finding))}"


def _sentence(finding: dict[str, Any]) -> str:
    return f"{finding['where']}: {finding['seen']}. {finding['why']} Do: {finding['todo']}."


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
