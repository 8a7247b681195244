"""The page that lists every rule, made from the rules: `python -m retrysafe.audit.reference`."""

from __future__ import annotations

import sys

from retrysafe.audit.rule import Rule
from retrysafe.audit.rules import RULES

_HEAD = """# Rules of `retrysafe audit`

This page is made from the rules themselves. An id never changes its meaning, and a number is never given twice.
"contract" is [the contract](../contract.md). [Audit an API](../how-to/audit.md) says how to run them, how to mend what
they find, and how to silence one. `manage.py check` has them too, under the same numbers: AUD-01 is `retrysafe.W001`;
AUD-14 is `retrysafe.E003`.

| id | | what must hold | what happens where it does not | source |
|---|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    return _HEAD + "".join(f"{_row(rule)}\n" for rule in RULES)


def _row(rule: Rule) -> str:
    return f"| {rule.id} | {rule.severity.value} | {rule.sentence} | {rule.why} | {rule.source} |"


if __name__ == "__main__":
    sys.stdout.write(page())
