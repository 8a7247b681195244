"""What nobody wants to hear again: rules that are silenced, and the findings of a baseline."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from retrysafe.audit.rule import Finding
from retrysafe.audit.rules import RULES
from retrysafe.errors import ConfigurationError

VERSION = 1


@dataclass(frozen=True, slots=True)
class Ignored:
    """A rule that is silenced.

    Attributes:
        text: as it was given.
        id: of the rule.
        where: a pattern of places, with `*`; `*` alone for all.
    """

    text: str
    id: str
    where: str

    def covers(self, finding: Finding) -> bool:
        """Whether a finding is silenced by it."""
        return finding.rule.id == self.id and fnmatchcase(finding.found.where, self.where)


def parse(texts: Iterable[str]) -> list[Ignored]:
    """`AUD-01`, or `AUD-01:POST /search`, in whose place `*` stands for anything.

    Raises:
        ConfigurationError: there is no such rule.
    """
    parsed = [
        Ignored(text, text.partition(":")[0].strip().upper(), text.partition(":")[2].strip() or "*") for text in texts
    ]
    known = {rule.id for rule in RULES}
    if faults := [
        f'there is no rule "{it.id}" to ignore; --list shows them all' for it in parsed if it.id not in known
    ]:
        raise ConfigurationError(faults)
    return parsed


@dataclass(frozen=True, slots=True)
class Heard:
    """What is left, and what was silenced.

    Attributes:
        findings: to be told.
        silenced: how many are not.
        idle: what silences nothing any more: entries of the baseline, and rules that were given.
    """

    findings: list[Finding]
    silenced: int
    idle: list[str]


def hear(findings: Sequence[Finding], ignored: Sequence[Ignored], baseline: frozenset[str]) -> Heard:
    """Leave out what is silenced: beside the handler, by a rule that was given, or by the baseline."""
    left = [
        it
        for it in findings
        if it.rule.id not in it.found.silenced
        and not any(rule.covers(it) for rule in ignored)
        and it.fingerprint not in baseline
    ]
    idle = [f"--ignore {it.text}" for it in ignored if not any(it.covers(finding) for finding in findings)]
    idle += [f"baseline: {it}" for it in sorted(baseline - {finding.fingerprint for finding in findings})]
    return Heard(left, len(findings) - len(left), idle)


def read_baseline(path: Path) -> frozenset[str]:
    """The findings that a file has.

    Raises:
        ConfigurationError: it is no baseline.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError([f"the baseline {path} cannot be read: {error}"]) from None
    findings = document.get("findings") if isinstance(document, dict) and document.get("version") == VERSION else None
    if not isinstance(findings, list) or not all(isinstance(it, str) for it in findings):
        raise ConfigurationError([f"{path} is no baseline of this release; make one with --write-baseline"])
    return frozenset(findings)


def write_baseline(path: Path, findings: Iterable[Finding]) -> None:
    """Write down what is found, so that only what is new is told.

    Raises:
        ConfigurationError: it cannot be written.
    """
    document = {"version": VERSION, "findings": sorted({finding.fingerprint for finding in findings})}
    try:
        path.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    except OSError as error:
        raise ConfigurationError([f"the baseline {path} cannot be written: {error}"]) from None
