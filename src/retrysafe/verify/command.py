"""`retrysafe verify` from its options to its exit code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from retrysafe.errors import ConfigurationError
from retrysafe.verify import replay as replays
from retrysafe.verify.case import Result
from retrysafe.verify.cases import CATALOGUE
from retrysafe.verify.options import Given, build, pairs, read_suite
from retrysafe.verify.probe import Run, Settings
from retrysafe.verify.report import badge, html, junit, sarif, text
from retrysafe.verify.report.document import document
from retrysafe.verify.runner import exit_code
from retrysafe.verify.selection import select
from retrysafe.verify.show import watch

_REPORTS: Mapping[str, Callable[[dict[str, Any]], str]] = {
    "html_report": html.render,
    "junit_report": junit.render,
    "sarif_report": sarif.render,
    "json_report": lambda report: json.dumps(report, indent=2) + "\n",
    "badge": badge.render,
}


def verify(options: dict[str, Any], say: Callable[[str], None]) -> int:
    """Do what the command line asks for, and give the exit code.

    Args:
        options: by their names.
        say: prints a line.

    Raises:
        ConfigurationError: something in the options cannot be used.
        RetrysafeError: the target cannot be reached, or its effects cannot be counted.
    """
    before = replays.read(options["replay"]) if options["replay"] else None
    only = options["only"] or (before.ids if before else ())
    cases = select(only, everything=not options["core"])
    if options["only_list"]:
        for line in text.catalogue(cases if only else CATALOGUE):
            say(line)
        return 0
    _refuse_places(options)
    run = build(_given(options, before), Settings(rounds=options["rounds"], effects_max=options["effects_max"]))
    results = watch(run, cases, options["jobs"])
    for line in replays.compare(before, results) if before else ():
        say(line)
    _write(options, run, results)
    if options["json_report"] and any(result.findings for result in results):
        say(f"after a fix: retrysafe verify --replay {options['json_report']}")
    return exit_code(results, strict=options["strict"])


def _given(options: Mapping[str, Any], before: replays.Before | None) -> Given:
    """Options over the suite over what the report says that is replayed."""
    names = {each.name for each in fields(Given)}
    said: dict[str, Any] = dict(before.given) if before else {}
    said = _over(said, read_suite(options["suite"]) if options["suite"] else {})
    said = _over(said, {name: value for name, value in options.items() if name in names and value not in {None, ()}})
    if operation := options["operation"]:
        said["operation"] = " ".join(operation if len(operation) > 1 else ("POST", *operation))
    else:
        said.setdefault("operation", "")
    for name, option in (("with_", "--with"), ("hook", "--hook")):
        if isinstance(said.get(name), tuple):
            said[name] = pairs(said[name], option)
    given = Given(**{**said, "operation": said["operation"] or ""})
    if before and before.credentials and not given.account:
        raise ConfigurationError([f"the report was made with {', '.join(before.credentials)}: give --account again"])
    return given


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """What is said here over what is said there; the content is one, whatever its kind."""
    content = {"json", "form"} if above.keys() & {"json", "form"} else set()
    return {name: value for name, value in below.items() if name not in content} | above


def _refuse_places(options: Mapping[str, Any]) -> None:
    """Before anything is sent: may the reports be written where they are wanted?"""
    wanted = [(f"--{name.replace('_', '-')}", Path(options[name])) for name in _REPORTS if options[name]]
    faults = [f"{option}: there is no folder {path.parent}" for option, path in wanted if not path.parent.is_dir()]
    faults += [f"{option}: {path} is a folder; name a file" for option, path in wanted if path.is_dir()]
    if faults:
        raise ConfigurationError(faults)


def _write(options: Mapping[str, Any], run: Run, results: Sequence[Result]) -> None:
    report = document(run, results, strict=options["strict"])
    for name, render in _REPORTS.items():
        if options[name]:
            try:
                Path(options[name]).write_text(render(report), "utf-8")
            except OSError as error:
                raise ConfigurationError([f"--{name.replace('_', '-')}: {error}"]) from None
