"""Paths with variables: do two of them have a path in common, and what is one that they stand for?

A variable is written in braces, as here, or in angle brackets, as Flask and Django do. One that says `path` stands for
any number of segments, every other for one.
"""

from __future__ import annotations

import re
from functools import cache

_VARIABLE = re.compile(r"\{(?P<brace>[^{}]*)\}|<(?P<angle>[^<>]*)>")


def sample(path: str) -> str:
    """A path that this one stands for."""
    return _VARIABLE.sub("1", path)


def in_braces(path: str) -> str:
    """The path as the routes table writes it: `/orders/<int:pk>` is `/orders/{pk}`."""
    return _VARIABLE.sub(_in_braces, path)


def _in_braces(variable: re.Match[str]) -> str:
    if variable["angle"] is None:
        return variable[0]
    kind, _, name = variable["angle"].rpartition(":")
    return f"{{{name}:path}}" if kind == "path" else f"{{{name}}}"


def overlap(one: str, other: str) -> bool:
    """Whether there is a path that both stand for."""
    return _overlap(tuple(one.split("/")), tuple(other.split("/")))


@cache
def _overlap(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    if not one or not other:
        return not one and not other
    for these, those in ((one, other), (other, one)):
        if _is_rest(these[0]):
            return any(_overlap(these[1:], those[count:]) for count in range(1, len(those) + 1))
    return _meet(one[0], other[0]) and _overlap(one[1:], other[1:])


def _is_rest(segment: str) -> bool:
    variable = _VARIABLE.search(segment)
    if variable is None:
        return False
    said = variable["brace"] if variable["brace"] is not None else variable["angle"]
    return "path" in re.split(r"[:*]", said)[:-1] or said.endswith(":path")


def _meet(one: str, other: str) -> bool:
    """Whether two segments can be the same: what is before and behind their variables does not differ."""
    first, second = (_VARIABLE.sub("\0", segment).split("\0") for segment in (one, other))
    if len(first) == len(second) == 1:
        return one == other
    heads, tails = (first[0], second[0]), (first[-1], second[-1])
    if len(first) == 1 or len(second) == 1:
        text, parts = (one, second) if len(first) == 1 else (other, first)
        return re.fullmatch(".+".join(map(re.escape, parts)), text) is not None
    return _starts(*heads) and _starts(*(tail[::-1] for tail in tails))


def _starts(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)
