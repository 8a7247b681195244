"""What the tests of the audit share: small applications as text, audited in this process, and fragments pasted."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from retrysafe.cli import main

_NUMBERS = itertools.count()
DOOR = 'store="sqlite:///never-opened.db", scope="header:X-Account"'


def command(*arguments: str) -> Result:
    """One command, without settings from outside."""
    unset = [name for name in os.environ if name.startswith(("RETRYSAFE_", "DJANGO_"))]
    return CliRunner().invoke(main, ["audit", *arguments], env=dict.fromkeys(unset), prog_name="retrysafe")


def report(*arguments: str) -> dict[str, Any]:
    """The report of one command, as JSON."""
    done = command(*arguments, "--json", "--fix")
    assert done.exit_code in {0, 1, 4}, done.output
    made: dict[str, Any] = json.loads(done.stdout)
    assert made["exit_code"] == done.exit_code
    return made


def ids(made: dict[str, Any]) -> list[str]:
    """What was found and where: `AUD-01 POST /charges`."""
    return [f"{it['id']} {it['where']}" for it in made["findings"]]


class Module:
    """A module in a folder, under a name that no other has, because a process imports each name once.

    Args:
        folder: the present one.
        source: of the module; its application is `app`.
    """

    def __init__(self, folder: Path, source: str) -> None:
        self.path = folder / f"shop_{next(_NUMBERS)}.py"
        self.write(source)

    def write(self, source: str) -> None:
        """Another text of it."""
        self.path.write_text(source, "utf-8")
        sys.modules.pop(self.path.stem, None)
        importlib.invalidate_caches()

    def audit(self, *arguments: str) -> dict[str, Any]:
        """The report."""
        sys.modules.pop(self.path.stem, None)
        return report(f"{self.path.stem}:app", *arguments)

    def paste(self, made: dict[str, Any]) -> None:
        """Put every fragment of a report where it says."""
        paste(self.path.parent, made, self.path.name)
        renamed = self.path.with_name(f"shop_{next(_NUMBERS)}.py")  # the compiled text of the old name may be as new
        self.path = self.path.rename(renamed)


def paste(folder: Path, made: dict[str, Any], otherwise: str) -> None:
    """Put every fragment of a report where it says; one that names no file, into this one."""
    by_line = sorted(made["fragments"], key=lambda it: -(it["line"] or 0))
    for each in by_line:
        path = folder / (each["file"] or otherwise)
        path.write_text(_pasted(path.read_text("utf-8"), each), "utf-8")
    for each in by_line:
        path = folder / (each["file"] or otherwise)
        text = path.read_text("utf-8")
        for line in each["imports"]:
            text = text if line in text.splitlines() else f"{line}\n{text}"
        path.write_text(text, "utf-8")


def _pasted(text: str, fragment: dict[str, Any]) -> str:
    lines, number, new = text.splitlines(), fragment["line"], fragment["text"]
    match fragment["put"]:
        case "before" | "instead":
            indent = re.match(r" *", lines[number - 1])
            assert indent is not None
            lines[number - 1 : number - 1 + (fragment["put"] == "instead")] = [indent[0] + new]
            return "\n".join(lines) + "\n"
        case "end":
            return f"{text}\n{new}\n"
        case "argument":
            name = new.partition("=")[0]
            if re.search(rf"\b{name}=", text):
                return re.sub(rf'\b{name}="[^"]*",?', new, text, count=1)
            return re.sub(r"(# door: )", f"{new} \\1", text, count=1)
        case "table":
            for line in new.splitlines():
                entry = re.match(r'"[^"]*"', line)
                assert entry is not None
                text = re.sub(rf"{re.escape(entry[0])}: [^\n]*,\n", "", text)
            return re.sub(r"routes=\{\n?", lambda found: f"{found[0]}\n{new}\n", text, count=1)
        case "remove":
            return re.sub(rf"{re.escape(new)}: [^\n]*\n", "", text)
    raise AssertionError(fragment["put"])
