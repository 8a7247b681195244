"""Which policy a request falls under, by a table that is read before any routing.

An entry is a method and a path: `"POST /orders/{id}/refund"`. A name in braces stands for one segment,
`{name:path}` for the rest. Entries without a variable win over those with one; among the latter the
first in the table wins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Literal

from retrysafe.errors import ConfigurationError
from retrysafe.protocol.answers import UNRECORDED_STATUS
from retrysafe.protocol.expiry import EXPIRES_FIELD
from retrysafe.protocol.policy import METHODS_NEVER, Policy
from retrysafe.value import value

ANY = "*"
_ENTRY_CHARACTERS_MAX = 255  # it is kept with each record
_ENTRY = re.compile(r"(?P<method>[A-Z]+) (?P<path>/[^\s\x00-\x1f\x7f\ud800-\udfff]*)")  # what any store can keep
_VARIABLE = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*(?P<rest>:path)?\}")


class Unnamed(Enum):
    """No entry of the table names the request."""

    UNNAMED = "unnamed"


UNNAMED = Unnamed.UNNAMED


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
        table: the entries as they were given, in order.
    """

    def __init__(self, default: Policy, table: Mapping[str, Policy | None]) -> None:
        self.table = dict(table)
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
        self._out = [entry for entry, policy in table.items() if policy is None]
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
        if self._exact or self._patterns:
            found = self.entry_for(method, path)
            if found is not UNNAMED:
                return found
        return self._default.get(method)

    def entry_for(self, method: str, path: str) -> Route | Literal[Unnamed.UNNAMED] | None:
        """The route of the entry that names a request; None if that takes it out, UNNAMED if there is no such entry."""
        if (method, path) in self._exact:
            return self._exact[method, path]
        for pattern_method, pattern, route in self._patterns:
            if pattern_method == method and pattern.fullmatch(path):
                return route
        return UNNAMED

    def default_for(self, method: str) -> Route | None:
        """The route of requests by that method which nothing names; None if they are not enrolled."""
        return self._default.get(method)

    def add(self, entry: str, policy: Policy | None, *, marked: bool) -> Route | None:
        """A route that the table does not have, because a handler of the application is marked with its policy.

        Args:
            entry: as one of the table: a method and a path.
            policy: what holds for it; None takes it out.
            marked: its handler says when it is entered.

        Raises:
            ConfigurationError: the entry is too long to be kept with each record.
        """
        if len(entry) > _ENTRY_CHARACTERS_MAX:
            raise ConfigurationError(
                [f'routes: "{entry}" has more than {_ENTRY_CHARACTERS_MAX} characters; shorten it']
            )
        if policy is None:
            self._out.append(entry)
            return None
        self._named[entry] = route = _route(entry, policy, marked=marked)
        self.methods |= {entry.partition(" ")[0]}
        if policy.transactional and entry not in self.transactional:
            self.transactional.append(entry)
        return route

    def entries(self) -> Mapping[str, Policy | None]:
        """What holds for each entry, `*` first; None for what is taken out."""
        return {**{entry: route.policy for entry, route in self._named.items()}, **dict.fromkeys(self._out)}

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
    return _route(entry[:_ENTRY_CHARACTERS_MAX], policy, marked=True)


def _route(entry: str, policy: Policy, *, marked: bool = False) -> Route:
    return Route(entry, policy, frozenset({policy.replay_field, UNRECORDED_STATUS[0], EXPIRES_FIELD}), marked)


def _compiled(path: str) -> re.Pattern[str]:
    parts, at = [], 0
    for variable in _VARIABLE.finditer(path):
        parts += [re.escape(path[at : variable.start()]), ".+" if variable["rest"] else "[^/]+"]
        at = variable.end()
    return re.compile("".join(parts) + re.escape(path[at:]), re.DOTALL)
