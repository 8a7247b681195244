"""Which cases there are: every point of every situation once; or at random, from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from prove.kill.modes import Mode
from prove.kill.orders import Action, Case, Shot
from prove.kill.rig import Rig

_SHOTS_MAX = 3


def situations(mode: Mode) -> dict[str, Case]:
    """What happened before one more attempt comes; these lead through every part of the flow.

    The owner before it died when its effect was there and its record was not; or it has answered.
    """
    return {
        "first": Case(()),
        "slow": Case((), slow=True),
        "lapsed": Case((Shot(Action.KILL, mode.lost),)),
        "recorded": Case((Shot(),)),
    }


def enumerated(rig: Rig, actions: Sequence[Action]) -> list[Case]:
    """Every point of every situation, with each of these actions."""
    before = list(situations(rig.mode).values())
    return [
        Case((*one.shots, Shot(action, point)), one.slow)
        for one, points in zip(before, rig.points(before), strict=True)
        for point in points
        for action in actions
    ]


def at_random(rig: Rig, action: Action, seed: int, number: int) -> Iterator[Case]:
    """Cases from a seed: up to three attempts of one key, each hurt at some point, of one of them every line is one."""
    choice = random.Random(seed)  # noqa: S311 - it has to be the same again
    before = list(situations(rig.mode).values())
    known = rig.points(before)
    points = [list(dict.fromkeys(point for passed in known[:2] for point in passed)), [*known[2], *known[3]]]
    lines = rig.points(before, lines=True)
    for _ in range(number):
        if action is Action.KILL and choice.random() < 0.3:
            which = choice.randrange(len(lines))
            yield Case((*before[which].shots, Shot(action, choice.choice(lines[which]))), before[which].slow)
            continue
        attempts = choice.randint(1, _SHOTS_MAX)
        shots = [Shot(action, choice.choice(points[min(attempt, 1)])) for attempt in range(attempts)]
        yield Case(tuple(shots), slow=choice.random() < 0.2)
