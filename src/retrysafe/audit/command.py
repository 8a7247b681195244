"""`retrysafe audit` from its options to its exit code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrysafe.audit.audited import audit
from retrysafe.audit.fragments import fragments
from retrysafe.audit.report import sarif, text
from retrysafe.audit.report.document import document
from retrysafe.audit.rule import Asked
from retrysafe.audit.rules import RULES
from retrysafe.audit.silence import Ignored, hear, parse, read_baseline, write_baseline
from retrysafe.audit.surface import Surface
from retrysafe.client.profile import profile_of
from retrysafe.errors import ConfigurationError
from retrysafe.gateway.settings_file import SettingsFile
from retrysafe.protocol.duration import milliseconds

TABLE = "audit"
_METHODS = ("POST", "PATCH")
_LISTS = ("client", "method", "ignore")
_TEXTS = ("retry_window", "baseline")


@dataclass(frozen=True, slots=True)
class Given:
    """What the user has said: options over what the settings file says.

    Attributes:
        asked: what is looked for.
        ignored: rules that are silenced.
        baseline: the file of findings that are known; None without one.
    """

    asked: Asked
    ignored: Sequence[Ignored]
    baseline: Path | None


def given(options: Mapping[str, Any], file: SettingsFile | None) -> Given:
    """What the options and the table `audit` of the settings file say together.

    Args:
        options: by their names; those that were not given are None or empty.
        file: of settings; None if there is none.

    Raises:
        ConfigurationError: with everything that cannot be used.
    """
    said = _said(file)
    merged = {**said, **{name: options[name] for name in (*_LISTS, *_TEXTS) if options.get(name)}}
    methods = {method.upper() for method in merged.get("method", ())}
    ignored = parse([*said.get("ignore", ()), *options.get("ignore", ())])
    clients = tuple(profile_of(name) for name in merged.get("client", ()))
    asked = Asked(_window_ms(merged.get("retry_window")), clients, frozenset({*_METHODS, *methods}))
    return Given(asked, ignored, Path(merged["baseline"]) if merged.get("baseline") else None)


def _said(file: SettingsFile | None) -> dict[str, Any]:
    table = file.others.get(TABLE, {}) if file else {}
    if file is None or not isinstance(table, dict):
        if file is not None:
            raise ConfigurationError([f"{file.where(TABLE)}: {TABLE} is {table!r}; it must be a table"])
        return {}
    faults = [
        f"{file.where(TABLE, name)}: {TABLE} has no setting {name}; it has {', '.join((*_LISTS, *_TEXTS))}"
        for name in table
        if name not in (*_LISTS, *_TEXTS)
    ]
    faults += [
        f"{file.where(TABLE, name)}: {name} is {table[name]!r}; it must be a list of strings"
        for name in _LISTS
        if not isinstance(table.get(name, []), list) or not all(isinstance(it, str) for it in table.get(name, []))
    ]
    faults += [
        f"{file.where(TABLE, name)}: {name} is {table[name]!r}; it must be a string"
        for name in _TEXTS
        if not isinstance(table.get(name, ""), str)
    ]
    if faults:
        raise ConfigurationError(faults)
    return dict(table)


def _window_ms(said: str | None) -> int | None:
    try:
        return None if said is None else milliseconds(said)
    except ValueError as error:
        raise ConfigurationError([f"--retry-window: {error}"]) from None


def run(
    options: Mapping[str, Any],
    file: SettingsFile | None,
    find: Callable[[], Surface],
    say: Callable[[str, str], None],
    warn: Callable[[str], None],
) -> int:
    """Do what the command line asks for, and give the exit code.

    Args:
        options: by their names.
        file: of settings; None if there is none.
        find: what is audited, read when the options are known to be good.
        say: prints a line, in the colour of a severity.
        warn: says something beside the report.

    Raises:
        ConfigurationError: something in the options cannot be used.
        RetrysafeError: the target cannot be read.
    """
    wanted = given(options, file)
    _refuse(options, wanted)
    surface = find()
    findings = audit(surface, wanted.asked)
    if options["write_baseline"] and wanted.baseline is not None:
        unheard = hear(findings, wanted.ignored, frozenset()).findings
        write_baseline(wanted.baseline, unheard)
        say(f"{len(unheard)} findings written to {wanted.baseline}", "")
        return 0
    heard = hear(findings, wanted.ignored, read_baseline(wanted.baseline) if wanted.baseline else frozenset())
    report = document(surface, wanted.asked, heard, fragments(surface, heard.findings) if options["fix"] else ())
    _show(options, report, say)
    for line in heard.idle:
        warn(f"silences nothing any more: {line}")
    return int(report["exit_code"])


def _refuse(options: Mapping[str, Any], wanted: Given) -> None:
    """Before anything is read: what cannot be meant."""
    faults = []
    if options["write_baseline"] and wanted.baseline is None:
        faults.append("--write-baseline needs --baseline FILE, which it writes")
    if options["sarif_report"] and not Path(options["sarif_report"]).parent.is_dir():
        faults.append(f"--sarif-report: there is no folder {Path(options['sarif_report']).parent}")
    if faults:
        raise ConfigurationError(faults)


def _show(options: Mapping[str, Any], report: dict[str, Any], say: Callable[[str, str], None]) -> None:
    if options["sarif_report"]:
        try:
            Path(options["sarif_report"]).write_text(sarif.render(report), "utf-8")
        except OSError as error:
            raise ConfigurationError([f"--sarif-report: {error}"]) from None
    if options["as_json"]:
        say(json.dumps(report, indent=2), "")
    elif options["fix"]:
        for line in text.fragment_lines(report):
            say(line, "")
    else:
        for line, severity in text.lines(report):
            say(line, severity)
    if options["annotations"] and not options["as_json"]:
        for line in text.annotation_lines(report):
            say(line, "")


def catalogue() -> list[str]:
    """Every rule, a line each."""
    return [f"{rule.id}  {rule.severity.value.ljust(7)}  {rule.sentence}" for rule in RULES]
