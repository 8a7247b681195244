"""Ways to choose: at random, by priorities that change a few times, or every way there is up to a bound."""

from __future__ import annotations

from random import Random

from retrysafe.lab.simulate.loop import Actor

LATENCY_MOST_S = 0.2


class Uniform:
    """Everything at random: mostly quick messages, now and then a slow one.

    Args:
        random: of the seed.
    """

    def __init__(self, random: Random) -> None:
        self._random = random.random

    def pick(self, busy: list[Actor]) -> int:
        """Anybody."""
        return int(self._random() * len(busy))

    def latency_s(self, actor: Actor) -> float:  # noqa: ARG002 - it is the same for all
        """Up to `LATENCY_MOST_S`, small ones being likely."""
        drawn = self._random()
        return LATENCY_MOST_S * drawn * drawn * drawn


class Priorities:
    """Probabilistic concurrency testing: a fault that needs `depth` orderings is found with a known likelihood.

    Each actor gets a priority at random, and the first always goes first. At `depth - 1` random steps whoever
    is at work falls behind all others. The messages of an actor take the longer, the lower its priority is.

    Args:
        random: of the seed.
        depth: of the faults to be found.
        steps: how long a run is, about.
    """

    def __init__(self, random: Random, depth: int = 3, steps: int = 120) -> None:
        self._random = random.random
        self._changes = {int(random.random() * steps) for _ in range(depth - 1)}
        self._ranks: dict[str, float] = {}
        self._step = 0
        self._lowest = 0.0

    def pick(self, busy: list[Actor]) -> int:
        """The first in rank."""
        self._step += 1
        place = max(range(len(busy)), key=lambda index: self._rank(busy[index]))
        if self._step in self._changes:
            self._lowest -= 1.0
            self._ranks[busy[place].name] = self._lowest
        return place

    def latency_s(self, actor: Actor) -> float:
        """Slow for who is low in rank."""
        rank = self._rank(actor)
        return LATENCY_MOST_S if rank < 0 else LATENCY_MOST_S * 0.03 ** (3 * rank)

    def _rank(self, actor: Actor) -> float:
        rank = self._ranks.get(actor.name)
        if rank is None:
            rank = self._ranks[actor.name] = self._random()
        return rank


class Bounded:
    """One actor after the other, but at some decisions the one whose turn it is goes to the end of the line.

    Args:
        delays: the numbers of the decisions at which it goes to the end of the line.
    """

    def __init__(self, delays: tuple[int, ...] = ()) -> None:
        self._delays = frozenset(delays)
        self.decisions = 0

    def pick(self, busy: list[Actor]) -> int:
        """The first in line, unless it is delayed."""
        if self.decisions in self._delays:
            busy.append(busy.pop(0))
        self.decisions += 1
        return 0

    def latency_s(self, actor: Actor) -> float:  # noqa: ARG002 - it is the same for all
        """None: what is sent is there, and who goes on is a decision."""
        return 0.0
