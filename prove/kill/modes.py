"""The modes: how a handler makes its effect, behind which door, and what the auditor permits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prove.kill import tables
from prove.kill.handlers import LEASE_MS, MakeHandler, calling, committing, ordering, ordering_whole, reached
from retrysafe import Policy
from retrysafe.lab import evidence


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to be protected.

    Attributes:
        name: for people and command lines.
        promise: what the auditor holds it to.
        handler: makes the handler behind the door; None is the gateway, whose upstream is another process.
        beside: what runs in another process, and is never hurt: the upstream of the gateway, or the other side of
            the handler's calls.
        options: of its policy.
        lost: the point at which an owner dies whose effect is there, or as good as there, and whose record is not.
        stores: in which it is to be had; empty is all.
    """

    name: str
    promise: evidence.Mode
    handler: MakeHandler | None = ordering
    beside: MakeHandler | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    lost: str = "before CompleteIfHeld #1"
    stores: tuple[str, ...] = ()

    @property
    def policy(self) -> Policy:
        """Of its route."""
        return Policy(lease=f"{LEASE_MS}ms", **self.options)


PROVED = (
    Mode("manual", evidence.Mode.MANUAL),
    Mode("rerun", evidence.Mode.RERUN, options={"recovery": "rerun"}),
    Mode("gateway", evidence.Mode.MANUAL, handler=None, beside=ordering_whole),
    Mode("steps", evidence.Mode.STEPS, handler=calling, beside=reached, options={"recovery": "rerun"}),
    Mode(
        "transactional",
        evidence.Mode.TRANSACTIONAL,
        handler=committing,
        options={"transactional": True},
        lost="before the commit #1",
        stores=tables.STORES,
    ),
)
BROKEN = Mode("broken", evidence.Mode.MANUAL, options={"recovery": "rerun"})
"""Promises at most one effect and runs again: whoever proves that has proved nothing."""

MODES = {mode.name: mode for mode in (*PROVED, BROKEN)}
