"""A client that tries one operation until it is told how it ended, or has had enough.

One in five asks once more after a success, as one does that crashed and did not keep the answer.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from retrysafe.faults import Fault, Nothing, Plan
from retrysafe.faults.fault import name_of
from retrysafe.lab.judged import End, Operation

_AGAIN_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Told:
    """What an attempt came to.

    Attributes:
        end: what the client knows now; OPEN if it has to ask again.
        success: what has to be the same in every success of an operation.
        retry_after: the field of that name in the answer; nothing without one.
    """

    end: End
    success: object = None
    retry_after: str = ""


@dataclass(frozen=True, slots=True)
class Patience:
    """How a client goes about it.

    Attributes:
        attempts_max: after how many requests it gives up.
        pause_s: between which bounds it waits between two of them.
        wait_s_max: how far it keeps to what an answer asks it to wait, besides.
    """

    attempts_max: int
    pause_s: tuple[float, float]
    wait_s_max: float


async def retry(
    name: str, number: int, plan: Plan, patience: Patience, ask: Callable[[Fault], Awaitable[Told]]
) -> Operation:
    """Try an operation.

    Args:
        name: of it.
        number: of it; with the seed of the plan and the number of an attempt it says which fault that meets.
        plan: the faults.
        patience: of the client.
        ask: sends one attempt through that fault.
    """
    dice = random.Random(f"{plan.seed}/{number}/client")  # noqa: S311 - can be replayed, no secrets
    asks_again = dice.random() < _AGAIN_SHARE
    end, successes, met = End.OPEN, [], []
    attempts = 0
    while attempts < patience.attempts_max:
        fault = plan.fault(f"{number}/{attempts}")
        attempts += 1
        if not isinstance(fault, Nothing):
            met.append(name_of(fault))
        told = await ask(fault)
        if told.end is End.DONE:
            successes.append(told.success)
        if told.end is not End.OPEN:
            end = end if end is End.DONE else told.end
            if not asks_again:
                break
            asks_again = False
        asked_s = float(told.retry_after) if told.retry_after.isdigit() else 0.0
        await asyncio.sleep(min(asked_s, patience.wait_s_max) + dice.uniform(*patience.pause_s))
    return Operation(name, end, successes, attempts, met)
