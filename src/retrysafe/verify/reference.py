"""The page that lists every case, made from the cases: `python -m retrysafe.verify.reference`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from retrysafe.verify.case import GROUPS, Case
from retrysafe.verify.cases import CATALOGUE
from retrysafe.verify.target import NEEDS

_HEAD = """# Cases of `retrysafe verify`

This page is made from the cases themselves. An id never changes its meaning.
*Core* cases run by default, the others with `--all`. What a case *needs* beyond the operation itself is at the end of
the page; without it the case is skipped, which is never a pass. "draft" is
`draft-ietf-httpapi-idempotency-key-header-07`, "contract" is [the contract](../contract.md).
"""


def page() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _HEAD
    for group, title in GROUPS.items():
        yield f"## {title}\n"
        yield "| id | | what must hold | why it matters | needs | source |"
        yield "|---|---|---|---|---|---|"
        yield from (_row(case) for case in CATALOGUE if case.group == group)
        yield ""
    yield "## What cases need\n"
    yield "| need | what it is | how it is given |"
    yield "|---|---|---|"
    for need, (what, how) in NEEDS.items():
        yield f"| `{need}` | {what} | `{how}` |".replace("FILE|URL", "FILE` or `URL")


def _row(case: Case) -> str:
    needs = ", ".join(f"`{need}`" for need in case.needs)
    core = f"{case.severity.value}, core" if case.core else case.severity.value
    return f"| {case.id} | {core} | {case.sentence} | {case.why} | {needs} | {case.source} |"


if __name__ == "__main__":
    sys.stdout.write(page())
