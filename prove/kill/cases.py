"""Which cases there are: every point of every situation once; or at random, from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from prove.kill.orders import Action, Case, Shot
from prove.kill.rig import Rig

# The situations in which one more attempt comes: they lead through every part of the flow. The owner before it died
# when the effect was there and the record was not; or it has answered.
_LOST = Shot(Action.KILL, "before CompleteIfHeld #1")
SITUATIONS = {
    "first": Case(()),
    "slow": Case((), slow=True),
    "lapsed": Case((_LOST,)),
    "recorded": Case((Shot(),)),
}
_SHOTS_MAX = 3


def enumerated(rig: Rig, actions: Sequence[Action]) -> list[Case]:
    """Every point of every situation, with each of these actions."""
    situations = list(SITUATIONS.values())
    return [
        Case((*before.shots, Shot(action, point)), before.slow)
        for before, points in zip(situations, rig.points(situations), strict=True)
        for point in points
        for action in actions
    ]


def at_random(rig: Rig, action: Action, seed: int, number: int) -> Iterator[Case]:
    """Cases from a seed: up to three attempts of one key, each hurt at some point, of one of them every line is one."""
    choice = random.Random(seed)  # noqa: S311 - it has to be the same again
    situations = list(SITUATIONS.values())
    known = rig.points(situations)
    points = [list(dict.fromkeys(point for passed in known[:2] for point in passed)), [*known[2], *known[3]]]
    lines = rig.points(situations, lines=True)
    for _ in range(number):
        if action is Action.KILL and choice.random() < 0.3:
            which = choice.randrange(len(lines))
            before = situations[which]
            yield Case((*before.shots, Shot(action, choice.choice(lines[which]))), before.slow)
            continue
        attempts = choice.randint(1, _SHOTS_MAX)
        shots = [Shot(action, choice.choice(points[min(attempt, 1)])) for attempt in range(attempts)]
        yield Case(tuple(shots), slow=choice.random() < 0.2)
