"""Which policy a request falls under, by a table that is read before any routing.

An entry is a method and a path: `"POST /orders/{id}/refund"`. A name in braces stands for one segment,
`{name:path}` for the rest. Entries without a variable win over those with one; among the latter the
first in the table wins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from retrysafe.errors import ConfigurationError
from retrysafe.protocol.policy import METHODS_NEVER, Policy

ANY = "*"
_ENTRY = re.compile(r"(?P<method>[A-Z]+) (?P<path>/\S*)")
_VARIABLE = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*(?P<rest>:path)?\}")

Enrolled = tuple[str, Policy]


class Routes:
    """The routes table of one door.

    Args:
        default: for requests that no entry names, by the methods that it enrols.
        table: entries to policies; None takes a route out.

    Raises:
        ConfigurationError: with every faulty entry.
    """

    def __init__(self, default: Policy, table: Mapping[str, Policy | None]) -> None:
        self._default: dict[str, Enrolled] = dict.fromkeys(default.methods, (ANY, default))
        self._exact: dict[tuple[str, str], Enrolled | None] = {}
        self._patterns: list[tuple[str, re.Pattern[str], Enrolled | None]] = []
        faults = []
        for entry, policy in table.items():
            parsed = _ENTRY.fullmatch(entry)
            if parsed is None or parsed["method"] in METHODS_NEVER:
                faults.append(
                    f'routes: "{entry}" is not "METHOD /path" with a method that may have keys '
                    f"(never {', '.join(sorted(METHODS_NEVER))})"
                )
                continue
            enrolled = None if policy is None else (entry, policy)
            if "{" in parsed["path"]:
                self._patterns.append((parsed["method"], _compiled(parsed["path"]), enrolled))
            else:
                self._exact[parsed["method"], parsed["path"]] = enrolled
        if faults:
            raise ConfigurationError(faults)
        self.methods = frozenset(
            {*self._default, *(method for method, _ in self._exact), *(method for method, _, _ in self._patterns)}
        )

    def find(self, method: str, path: str) -> Enrolled | None:
        """The entry and policy for a request; None if it is not enrolled.

        Args:
            method: upper case.
            path: decoded, as a router would match it.
        """
        if (method, path) in self._exact:
            return self._exact[method, path]
        for pattern_method, pattern, enrolled in self._patterns:
            if pattern_method == method and pattern.fullmatch(path):
                return enrolled
        return self._default.get(method)


def _compiled(path: str) -> re.Pattern[str]:
    parts, at = [], 0
    for variable in _VARIABLE.finditer(path):
        parts += [re.escape(path[at : variable.start()]), ".+" if variable["rest"] else "[^/]+"]
        at = variable.end()
    return re.compile("".join(parts) + re.escape(path[at:]), re.DOTALL)
