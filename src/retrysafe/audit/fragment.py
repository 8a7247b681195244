"""A piece of text that mends something, and where it goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from retrysafe.audit.surface import Place
from retrysafe.protocol.policy import Policy

_PLAIN = Policy()


class Put(StrEnum):
    """Where a piece of text goes."""

    BEFORE = "before"
    INSTEAD = "instead"
    END = "end"
    ARGUMENT = "argument"
    TABLE = "table"
    MERGE = "merge"
    FILE = "file"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Fragment:
    """A piece of text.

    Attributes:
        put: where it goes.
        place: the line, or the file, that is meant; None if nobody knows.
        text: what to paste, or to remove.
        of: the findings that it mends, as `AUD-01 POST /charges`.
        imports: lines that have to stand above it.
    """

    put: Put
    place: Place | None
    text: str
    of: tuple[str, ...]
    imports: tuple[str, ...] = ()


def said_of(policy: Policy | None) -> dict[str, Any]:
    """The options of a policy that differ from the defaults, as somebody would write them."""
    if policy is None:
        return {}
    names = [it.name for it in fields(Policy) if it.init and not callable(getattr(policy, it.name))]
    said = {name: getattr(policy, name) for name in names if getattr(policy, name) != getattr(_PLAIN, name)}
    return without_implied(said)


def without_implied(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options without what others of them mean, and without what takes back what nothing sets."""
    implied = {"recovery"} if options.get("transactional") else set()
    implied |= {name for name in ("transactional",) if options.get(name) is False}
    return {name: value for name, value in options.items() if name not in implied}


def arguments(options: Mapping[str, Any]) -> str:
    """`required=True, lifetime="7d"`."""
    return ", ".join(f"{name}={quoted(value)}" for name, value in options.items())


def quoted(value: Any) -> str:
    """A value as code, with the quotation marks of this project."""
    if isinstance(value, str) and '"' not in value and "\\" not in value:
        return f'"{value}"'
    return repr(value)


def table(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """Entries of a routes table, a line each."""
    return "\n".join(f'"{entry}": Policy({arguments(options)}),' for entry, options in entries.items())


def dictionary(options: Mapping[str, Any]) -> str:
    """Options as a dictionary, as settings of Django have them."""
    return "{" + ", ".join(f'"{name}": {quoted(value)}' for name, value in options.items()) + "}"


def joined(texts: Iterable[str]) -> str:
    """Lines as one text."""
    return "\n".join(texts)
