"""Every rule of the audit."""

from retrysafe.audit.rule import Rule
from retrysafe.audit.rules import declarations, doors, protection

RULES: tuple[Rule, ...] = tuple(
    sorted([*protection.rules.all, *declarations.rules.all, *doors.rules.all], key=lambda rule: rule.id)
)
