"""Which exchange meets which fault: a function of a seed, so that a run under faults can be had again.

A user writes a chance as one word, `NAME[:ARGUMENT,...][@SHARE%]`:

    lose-response@5%       one in twenty answers is lost
    delay:200ms@10%        one in ten requests arrives 200 ms late
    cut-response:64        every answer is cut behind its 64th byte
    cut-response@1%        one in a hundred, at a byte that the seed draws
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from retrysafe.errors import ConfigurationError
from retrysafe.faults.fault import KINDS, Fault, Nothing

# Between which an argument is drawn that nobody gave.
_RANGES: Mapping[str, tuple[int, int]] = {
    "at_byte": (1, 400),
    "after_ms": (0, 100),
    "delay_ms": (1, 200),
    "piece_bytes": (1, 64),
    "pause_ms": (1, 5),
}
_WORD = re.compile(r"(?P<name>[a-z-]+)(?::(?P<arguments>[^@]*))?(?:@(?P<share>.*))?", re.ASCII)
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)%", re.ASCII)
_DURATION = re.compile(r"(\d{1,6})(ms|s)", re.ASCII)
_BYTES = re.compile(r"\d{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Chance:
    """How often a kind of fault is met.

    Attributes:
        kind: a name in `KINDS`.
        share: of all exchanges, from 0 to 1.
        given: arguments of the fault; those that are not here are drawn.
    """

    kind: str
    share: float = 1.0
    given: Mapping[str, int] = field(default_factory=dict)

    def draw(self, dice: random.Random) -> Fault:
        """A fault of this kind."""
        kind = KINDS[self.kind]
        drawn = {each.name: dice.randrange(*_RANGES[each.name]) for each in fields(kind)}
        return kind(**{**drawn, **self.given})

    def __str__(self) -> str:
        """The word that `parse` reads."""
        given = ",".join(f"{value}ms" if name.endswith("_ms") else str(value) for name, value in self.given.items())
        return self.kind + (f":{given}" if given else "") + (f"@{self.share * 100:g}%" if self.share < 1 else "")


@dataclass(frozen=True, slots=True)
class Plan:
    """The faults of a run. An exchange meets one of them, or none.

    Attributes:
        seed: the same seed gives the same faults.
        chances: their shares are at most 1 together.
    """

    seed: int
    chances: Sequence[Chance]

    def fault(self, name: int | str) -> Fault:
        """What happens to that exchange. Each has dice of its own, so that it does not matter which comes first.

        Args:
            name: its number, the first is 0; or whatever else names it.
        """
        dice = random.Random(f"{self.seed}/{name}")  # noqa: S311 - faults that can be replayed, no secrets
        at = dice.random()
        for chance in self.chances:
            if at < chance.share:
                return chance.draw(dice)
            at -= chance.share
        return Nothing()


def parse(words: Sequence[str]) -> tuple[Chance, ...]:
    """The chances that a user wrote.

    Raises:
        ConfigurationError: with every word that is none, and which part of it is wrong; or they are more than all.
    """
    chances, faults = [], []
    for word in words:
        try:
            chances.append(_parse(word.strip()))
        except ValueError as error:
            faults.append(f"--fault {word!r}: {error}")
    if faults:
        raise ConfigurationError(faults)
    if (total := sum(chance.share for chance in chances)) > 1 + 1e-9:
        raise ConfigurationError(
            [f"the shares of --fault are {total * 100:g}% together: at most 100%, as an exchange meets one fault"]
        )
    return tuple(chances)


def _parse(word: str) -> Chance:
    match = _WORD.fullmatch(word)
    if match is None or match["name"] not in KINDS:
        name = re.split("[:@]", word)[0]
        raise ValueError(f"there is no fault {name!r}; there are {', '.join(KINDS)}")
    return Chance(match["name"], _share(match["share"]), _arguments(match["name"], match["arguments"]))


def _share(text: str | None) -> float:
    if text is None:
        return 1.0
    match = _SHARE.fullmatch(text)
    if match is None or not 0 < float(match[1]) <= 100:
        raise ValueError(f"{text!r} is no share: write a number up to 100 and a percent sign, like 5% or 0.1%")
    return float(match[1]) / 100


def _arguments(name: str, text: str | None) -> dict[str, int]:
    """Arguments in the order of the fault's attributes; none, or all."""
    if text is None:
        return {}
    names = [each.name for each in fields(KINDS[name])]
    if not names:
        raise ValueError(f"{name} takes no argument, and {text!r} was given")
    texts = text.split(",")
    if len(texts) != len(names):
        raise ValueError(f"{name} takes {', '.join(names)}, like {_example(name)}; {text!r} was given")
    return {name: _argument(name, each) for name, each in zip(names, texts, strict=True)}


def _argument(name: str, text: str) -> int:
    if name.endswith("_ms"):
        if match := _DURATION.fullmatch(text):
            return int(match[1]) * (1_000 if match[2] == "s" else 1)
        raise ValueError(f"{text!r} is no duration: write 200ms or 2s")
    if not _BYTES.fullmatch(text):
        raise ValueError(f"{text!r} is no number of bytes: write 64")
    return int(text)


def _example(name: str) -> str:
    return f"{name}:" + ",".join("200ms" if each.name.endswith("_ms") else "64" for each in fields(KINDS[name]))
