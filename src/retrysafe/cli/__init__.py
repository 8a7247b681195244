"""The command line. Each command calls something else.

Exit codes, for all of it: 0 clean, 1 findings, 2 usage or configuration, 3 target or store unreachable,
4 inconclusive, 130 interrupted. Never 0 with nothing checked.
"""

from retrysafe.cli.base import main

# Each adds its commands to main.
from retrysafe.cli import auditing, lab, proving, records, serving, upkeep  # isort: skip

__all__ = ["auditing", "lab", "main", "proving", "records", "serving", "upkeep"]
