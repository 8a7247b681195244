"""Which connection meets which fault: a function of a seed, so that a run under faults can be had again."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from retrysafe.faults.fault import (
    CutRequest,
    CutResponse,
    DeliverTwice,
    Fault,
    Leave,
    LoseResponse,
    Nothing,
    Reset,
    Slow,
)

_REQUEST_BYTES_MAX = 400
_RESPONSE_BYTES_MAX = 400
_LEAVE_MS_MAX = 100

_DRAWS: tuple[Callable[[random.Random], Fault], ...] = (
    lambda dice: CutRequest(dice.randrange(1, _REQUEST_BYTES_MAX)),
    lambda _: LoseResponse(),
    lambda dice: CutResponse(dice.randrange(1, _RESPONSE_BYTES_MAX)),
    lambda dice: Leave(dice.randrange(_LEAVE_MS_MAX)),
    lambda _: Reset(),
    lambda _: DeliverTwice(),
    lambda dice: Slow(dice.randrange(1, 64), dice.randrange(1, 5)),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """The faults of a run.

    Attributes:
        seed: the same seed gives the same faults.
        one_in: one connection in so many meets a fault; 1 is every one.
    """

    seed: int
    one_in: int = 2

    def fault(self, number: int) -> Fault:
        """What happens to that connection; the first is 0. Each number has dice of its own, so order is nothing."""
        dice = random.Random(f"{self.seed}/{number}")  # noqa: S311 - faults that can be replayed, no secrets
        return dice.choice(_DRAWS)(dice) if dice.randrange(self.one_in) == 0 else Nothing()
