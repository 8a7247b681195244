"""Which policy a request falls under, by a table that is read before any routing.

An entry is a method and a path: `"POST /orders/{id}/refund"`. A name in braces stands for one segment,
`{name:path}` for the rest. Entries without a variable win over those with one; among the latter the
first in the table wins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from retrysafe.errors import ConfigurationError
from retrysafe.protocol.flow import UNRECORDED_STATUS
from retrysafe.protocol.policy import METHODS_NEVER, Policy
from retrysafe.value import value

ANY = "*"
_ENTRY_CHARACTERS_MAX = 255  # it is kept with each record
_ENTRY = re.compile(r"(?P<method>[A-Z]+) (?P<path>/[^\s\x00-\x1f\x7f\ud800-\udfff]*)")  # what any store can keep
_VARIABLE = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*(?P<rest>:path)?\}")


@value
class Route:
    """An enrolled route.

    Attributes:
        entry: of the table, or `*`.
        policy: what holds for it.
        withheld: names of response fields, in lower case, that its handler may not set: they are ours.
        marked: its handler is marked by `@idempotent`, and says when it is entered.
    """

    entry: str
    policy: Policy
    withheld: frozenset[bytes]
    marked: bool = False


class Routes:
    """The routes table of one door.

    Args:
        default: for requests that no entry names, by the methods that it enrols.
        table: entries to policies; None takes a route out.

    Raises:
        ConfigurationError: with every faulty entry.

    Attributes:
        methods: that any route has.
        transactional: the entries whose handlers complete their own records.
    """

    def __init__(self, default: Policy, table: Mapping[str, Policy | None]) -> None:
        self._default: dict[str, Route] = dict.fromkeys(default.methods, _route(ANY, default))
        self._exact: dict[tuple[str, str], Route | None] = {}
        self._patterns: list[tuple[str, re.Pattern[str], Route | None]] = []
        faults = []
        for entry, policy in table.items():
            parsed = _ENTRY.fullmatch(entry)
            if parsed is None or parsed["method"] in METHODS_NEVER:
                faults.append(
                    f'routes: "{entry}" is not "METHOD /path" with a method that may have keys '
                    f"(never {', '.join(sorted(METHODS_NEVER))})"
                )
                continue
            if len(entry) > _ENTRY_CHARACTERS_MAX:
                faults.append(f'routes: "{entry}" has more than {_ENTRY_CHARACTERS_MAX} characters; shorten it')
                continue
            route = None if policy is None else _route(entry, policy)
            if "{" in parsed["path"]:
                self._patterns.append((parsed["method"], _compiled(parsed["path"]), route))
            else:
                self._exact[parsed["method"], parsed["path"]] = route
        if faults:
            raise ConfigurationError(faults)
        self._named = {
            ANY: _route(ANY, default),
            **{entry: _route(entry, policy) for entry, policy in table.items() if policy},
        }
        self.methods = frozenset(
            {*self._default, *(method for method, _ in self._exact), *(method for method, _, _ in self._patterns)}
        )

        policies = {ANY: default, **table}
        self.transactional = [
            entry for entry, policy in policies.items() if policy is not None and policy.transactional
        ]

    def find(self, method: str, path: str) -> Route | None:
        """The route of a request; None if it is not enrolled.

        Args:
            method: upper case.
            path: decoded, as a router would match it.
        """
        if (method, path) in self._exact:
            return self._exact[method, path]
        for pattern_method, pattern, route in self._patterns:
            if pattern_method == method and pattern.fullmatch(path):
                return route
        return self._default.get(method)

    def named(self, entry: str) -> Route | None:
        """The route of an entry of the table, as records keep it; None if there is none any more."""
        return self._named.get(entry)

    def policy_of(self, entry: str) -> Policy:
        """What holds for the records of an entry; of one that is not in the table any more, the default."""
        return (self.named(entry) or self._named[ANY]).policy


def marked_route(entry: str, policy: Policy) -> Route:
    """The route of a handler that is marked by `@idempotent`.

    Args:
        entry: for people, `POST /orders/<pk>`, say; what is too long to be kept with a record is cut off.
        policy: of the handler.
    """
    return replace(_route(entry[:_ENTRY_CHARACTERS_MAX], policy), marked=True)


def _route(entry: str, policy: Policy) -> Route:
    return Route(entry, policy, frozenset({policy.replay_field, UNRECORDED_STATUS[0]}))


def _compiled(path: str) -> re.Pattern[str]:
    parts, at = [], 0
    for variable in _VARIABLE.finditer(path):
        parts += [re.escape(path[at : variable.start()]), ".+" if variable["rest"] else "[^/]+"]
        at = variable.end()
    return re.compile("".join(parts) + re.escape(path[at:]), re.DOTALL)
