"""Texts with `{{unique}}` in them, and a small expression that finds a value in JSON."""

from __future__ import annotations

import re
from typing import Any

from retrysafe.errors import ConfigurationError

UNIQUE = "{{unique}}"

_STEP = re.compile(r"\.([A-Za-z_][\w-]*)|\[(\d+)\]|\[\"([^\"]+)\"\]|\['([^']+)'\]|(\[\*\])")


def fill(text: str, unique: str) -> str:
    """The text with the reference in its place; without spaces inside the braces or with."""
    return re.sub(r"\{\{\s*unique\s*\}\}", lambda _: unique, text)


def is_unique(text: str) -> bool:
    """Whether the text has a place for the reference."""
    return fill(text, "") != text


class Path:
    """A path into JSON: `$`, `$.total`, `$.items`, `$.pages[0].count`, `$[*].id`, `$["odd name"]`.

    Args:
        text: the path.

    Raises:
        ConfigurationError: it is none.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._steps: list[str | int | None] = []
        rest = text.removeprefix("$")
        if rest == text:
            raise ConfigurationError([f"{text!r} is no path: it must begin with $, as in $.total"])
        while rest:
            step = _STEP.match(rest)
            if step is None:
                raise ConfigurationError([f"{text!r} is no path: nothing is known of {rest!r}"])
            name, index, quoted, single, every = step.groups()
            self._steps.append(None if every else int(index) if index else name or quoted or single)
            rest = rest[step.end() :]

    def find(self, document: Any) -> Any:
        """What the path leads to; None if it leads nowhere. `[*]` gives a list."""
        return _follow(document, self._steps)

    def count(self, document: Any) -> int | None:
        """What the path leads to as a number: of a list its length; None if it is no number."""
        found = self.find(document)
        if isinstance(found, list | dict):
            return len(found)
        if isinstance(found, str) and found.isdigit():
            return int(found)
        return found if isinstance(found, int) and not isinstance(found, bool) else None


def _follow(value: Any, steps: list[str | int | None]) -> Any:
    for position, step in enumerate(steps):
        if step is None:
            found = [_follow(item, steps[position + 1 :]) for item in value] if isinstance(value, list) else []
            return [item for item in found if item is not None]
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value
