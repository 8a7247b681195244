"""Every server with a defect, in the order of what they get wrong."""

from __future__ import annotations

import tomllib
from importlib.resources import files

from retrysafe.lab.mutants import answers, documents, keys, outcomes, privacy, races, reuse
from retrysafe.lab.mutants.correct import Server

_MODULES = (keys, answers, reuse, races, outcomes, privacy, documents)


def _servers() -> list[type[Server]]:
    """The classes of these modules, in the order in which they stand; those with an underscore are only parents."""
    found: list[type[Server]] = []
    for module in _MODULES:
        defined = [kind for kind in vars(module).values() if getattr(kind, "__module__", "") == module.__name__]
        found += [kind for kind in defined if isinstance(kind, type) and issubclass(kind, Server)]
    return [kind for kind in found if not kind.__name__.startswith("_")]


MUTANTS: tuple[type[Server], ...] = tuple(_servers())
_ALL: list[type[Server]] = [Server, *MUTANTS]
SERVERS = {kind.__name__: kind for kind in _ALL}

# By which cases each of them is found: by these, and by no others.
FOUND_BY: dict[str, frozenset[str]] = {
    name: frozenset(ids.split())
    for name, ids in tomllib.loads((files(__package__) / "found_by.toml").read_text("utf-8")).items()
}
