"""An audit: every rule over a surface."""

from __future__ import annotations

from collections.abc import Sequence

from retrysafe.audit.rule import Asked, Finding, Severity
from retrysafe.audit.rules import RULES
from retrysafe.audit.surface import Operation, Surface


def audit(surface: Surface, asked: Asked) -> list[Finding]:
    """What is found, errors first, each rule's findings together."""
    found = [Finding(rule, each) for rule in RULES for each in rule.check(surface, asked)]
    return sorted(found, key=lambda finding: (finding.severity is not Severity.ERROR, finding.rule.id))


def checked(surface: Surface, asked: Asked) -> Sequence[Operation]:
    """The operations that were looked at: those that could do a thing twice, and those that are protected."""
    return [it for it in surface.operations if it.policy is not None or it.method in asked.methods]
