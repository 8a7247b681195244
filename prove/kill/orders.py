"""What a process is told when it is forked, and what a case does to the processes that it needs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum

SECRET = "the secret of every proof"  # noqa: S105 - it keeps nothing secret
SCOPE = "account-1"
PATH = "/orders"


class Action(StrEnum):
    """What happens to a process at its point."""

    NONE = "none"
    KILL = "kill"
    STOP = "stop"
    STORE = "store"


@dataclass(frozen=True, slots=True)
class Order:
    """What a forked process is to be.

    Attributes:
        mode: by its name.
        store: URL of it.
        ledger: file for effects.
        trace: file for the points that it passes.
        point: where the action happens; empty is nowhere.
        action: what happens there.
        beside: port of the process that stands beside it, if one does; the order of that one has none.
        lines: every line of the package is a point.
    """

    mode: str
    store: str
    ledger: str
    trace: str
    point: str = ""
    action: Action = Action.NONE
    beside: int = 0
    lines: bool = False

    def encoded(self) -> bytes:
        """For a pipe."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decoded(cls, content: bytes) -> Order:
        """From a pipe."""
        said = json.loads(content)
        return cls(**{**said, "action": Action(said["action"])})


@dataclass(frozen=True, slots=True)
class Shot:
    """One attempt, and what happens to its process at which point."""

    action: Action = Action.NONE
    point: str = ""

    def __str__(self) -> str:
        return f"{self.action}@{self.point}" if self.point else str(self.action)


@dataclass(frozen=True, slots=True)
class Case:
    """The attempts of one key, each in a process of its own; after them come two retries that nobody disturbs.

    Attributes:
        shots: one for each attempt.
        slow: the handler takes more than a third of its lease.
    """

    shots: tuple[Shot, ...]
    slow: bool = False

    @property
    def lines(self) -> bool:
        """Whether one of its points is a line of the package."""
        return any(".py:" in shot.point for shot in self.shots)

    def __str__(self) -> str:
        return ", ".join([*(["slow"] if self.slow else []), *map(str, self.shots)])

    @classmethod
    def parsed(cls, text: str) -> Case:
        """A case from what `str` says of it.

        Raises:
            ValueError: it is none.
        """
        words = [word.strip() for word in text.split(",")]
        slow = words[0] == "slow"
        shots = []
        for word in words[slow:]:
            action, _, point = word.partition("@")
            shots.append(Shot(Action(action), point))
        return cls(tuple(shots), slow)
