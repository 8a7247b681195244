"""What a rule of the audit is, and what a finding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from retrysafe.audit.surface import Operation, Place, Surface
from retrysafe.client.profile import Profile


class Severity(StrEnum):
    """How bad it is."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user has said besides the target.

    Attributes:
        window_ms: how long clients go on trying; None if that was not said.
        clients: profiles that clients use.
        methods: that do a thing twice when they are repeated, in upper case.
    """

    window_ms: int | None = None
    clients: tuple[Profile, ...] = ()
    methods: frozenset[str] = frozenset({"POST", "PATCH"})


@dataclass(frozen=True, slots=True)
class SetOptions:
    """Options of the policy that an operation needs; it is protected by them, if it was not."""

    operation: Operation
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Describe:
    """The document has to say what holds for an operation."""

    operation: Operation


@dataclass(frozen=True, slots=True)
class Reset:
    """A setting of the door has to be another one."""

    setting: str
    value: str


@dataclass(frozen=True, slots=True)
class Drop:
    """An entry of the routes table has to go."""

    entry: str


@dataclass(frozen=True, slots=True)
class Behind:
    """The door has to stand behind what authenticates."""


@dataclass(frozen=True, slots=True)
class Glue:
    """The door has to be the one of the framework."""


Remedy = SetOptions | Describe | Reset | Drop | Behind | Glue


@dataclass(frozen=True, slots=True)
class Found:
    """What a check has found.

    Attributes:
        where: the route, the entry of the table, or the setting of the door.
        seen: what is there, as a sentence without its full stop.
        todo: what to do about it, likewise.
        remedy: what to change.
        place: where that stands; None if it is not known.
        severity: if it is another one than that of its rule.
        silenced: ids of rules that are silenced there.
    """

    where: str
    seen: str
    todo: str
    remedy: Remedy
    place: Place | None = None
    severity: Severity | None = None
    silenced: frozenset[str] = frozenset()


Check = Callable[[Surface, Asked], Iterator[Found]]


@dataclass(frozen=True, slots=True)
class Rule:
    """What is looked for.

    Attributes:
        id: stable; a number is never given twice.
        sentence: what must hold.
        why: what happens where it does not.
        source: where that stands.
        severity: of its findings.
        check: finds them.
    """

    id: str
    sentence: str
    why: str
    source: str
    severity: Severity
    check: Check


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found, and by which rule."""

    rule: Rule
    found: Found

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return self.found.severity or self.rule.severity

    @property
    def fingerprint(self) -> str:
        """What makes it the same finding in another run: the rule and the place, without lines."""
        return f"{self.rule.id}:{self.found.where}"


class Rules:
    """Collects the rules of a module, in order."""

    def __init__(self) -> None:
        self.all: list[Rule] = []

    def rule(self, id_: str, severity: Severity, source: str, why: str) -> Callable[[Check], Check]:
        """Make a function a rule; its docstring is what must hold."""

        def collect(check: Check) -> Check:
            self.all.append(Rule(id_, (check.__doc__ or "").strip(), why, source, severity, check))
            return check

        return collect


def of_operation(operation: Operation, seen: str, todo: str, remedy: Remedy, severity: Severity | None = None) -> Found:
    """A finding about an operation, at its place."""
    evidence = operation.evidence
    return Found(operation.route, seen, todo, remedy, evidence.place, severity, evidence.silenced)
