"""A TOML file of settings that knows where each of them stands.

The parser of the standard library gives values and no lines; a second, small look at the text finds
the lines, so that a fault can be told as `retrysafe.toml:12`.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from retrysafe.errors import ConfigurationError

OWN_NAME = "retrysafe.toml"
SHARED_NAME = "pyproject.toml"
_OTHERS = ("audit",)

Place = tuple[str, ...]

_ASSIGNMENT = re.compile(r"""\s*((?:[A-Za-z0-9_.\s-]|"[^"]*"|'[^']*')+?)\s*=""")


class SettingsFile:
    """The settings in one file.

    Args:
        path: of the file; in a `pyproject.toml` the settings are the table `tool.retrysafe`.

    Attributes:
        table: the settings as they stand.
        others: tables of commands that have settings of their own, by name.

    Raises:
        ConfigurationError: it cannot be read, is not TOML, or has something else where the table should be.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._root: Place = ("tool", "retrysafe") if path.name == SHARED_NAME else ()
        try:
            text = path.read_text("utf-8")
            document = tomllib.loads(text)
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise ConfigurationError([f"{path}: the file cannot be read: {reason}"]) from None
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError([f"{path}: {error}"]) from None
        self._lines = _lines(text)
        self.table: dict[str, Any] = document
        for name in self._root:
            inner = self.table.get(name, {})
            if not isinstance(inner, dict):
                raise ConfigurationError([f"{self.where()}: {name} must be a table; write [{'.'.join(self._root)}]"])
            self.table = inner
        self.others = {name: self.table.pop(name) for name in _OTHERS if name in self.table}

    def where(self, *place: str) -> str:
        """File and line of a setting, or of the innermost table around it that has a line."""
        inner = self._root + place
        while inner:
            if inner in self._lines:
                return f"{self._path}:{self._lines[inner]}"
            inner = inner[:-1]
        return str(self._path)


def find(named: Path | None, folder: Path) -> SettingsFile | None:
    """The file to use: the one that was named, else the project's own in `folder`; None if there is none.

    Raises:
        ConfigurationError: it cannot be used.
    """
    if named is not None:
        return SettingsFile(named)
    if (folder / OWN_NAME).exists():
        return SettingsFile(folder / OWN_NAME)
    if (folder / SHARED_NAME).exists():
        shared = SettingsFile(folder / SHARED_NAME)
        return shared if shared.table or shared.others else None
    return None


def _lines(text: str) -> dict[Place, int]:
    """Tables and keys to the lines where they first stand. What only looks like one, in a long string, does no harm."""
    lines: dict[Place, int] = {}
    table: Place = ()
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("["):
            table = _place(line) or table
            lines.setdefault(table, number)
        elif assignment := _ASSIGNMENT.match(line):
            lines.setdefault(table + _place(f"{assignment[1]} = 0"), number)
    return lines


def _place(line: str) -> Place:
    """The path of names that a line of TOML makes."""
    try:
        found = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return ()
    place: Place = ()
    inner: Any = found
    while isinstance(inner, dict) and inner:
        name, inner = next(iter(inner.items()))
        place += (name,)
    return place
