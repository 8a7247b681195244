"""JSON in one spelling: texts with the same meaning become the same bytes (contract R25, R26, R32).

What is the same: the order of members, white space, the escapes in strings, and how a number is
written. A number is its exact decimal value: `1`, `1.0`, `1e0` and `10e-1` are one number, and so are
`0` and `-0`; `9007199254740992` and `9007199254740993` are two, though a binary double cannot tell.

What has no single meaning has no canonical form: readers differ about a member that occurs twice,
about half a surrogate pair, about `NaN`. Nor has what is nested absurdly deep.

The work is done in C, by the scanner of the standard library and by `ascii`, which writes a tree in one
way only. An object is a tuple of its members, an array a list. The scanner knows no exact decimals, so a
number that is no plain integer is a pair that begins with `nan`, and an element left out is `inf`: no
valid text contains either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import accumulate
from json import JSONDecoder, dumps
from typing import Any, NoReturn

DEPTH_MAX = 100

_INTEGER_DIGITS_MAX = 40
_EXPONENT_DIGITS_MAX = 20
_NAN = float("nan")
_INFINITY = float("inf")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_WHITE_SPACE = " \t\n\r"
_INDEX = re.compile(r"0|[1-9][0-9]*")


def canonical_json(content: bytes, only: Iterable[str] = (), excluded: Iterable[str] = ()) -> bytes | None:
    """The canonical form of a JSON text in UTF-8.

    Args:
        content: the text.
        only: JSON Pointers (RFC 6901) of the values that count; none means all.
        excluded: JSON Pointers of the values that do not count, present or absent.

    Returns:
        None if the text is not JSON, or has no single meaning.
    """
    if content.count(b"[") + content.count(b"{") > DEPTH_MAX < _depth(content):
        return None
    try:
        text = content.decode().strip(_WHITE_SPACE)
        selective = only or excluded
        tree, end = (_SCAN_TO_SELECT if selective else _SCAN)(text, 0)
        if end != len(text):
            return None
        if selective:
            tree = _written(_selected(tree, only, excluded))
        canonical = ascii(tree)
        if "\\ud" in canonical:  # half a surrogate pair, or only a backslash before these letters
            dumps(tree, ensure_ascii=False).encode()
        return canonical.encode()
    except (ValueError, StopIteration):  # the scanner stops where a value should begin
        return None


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member occurs twice")
    return members


def _object(pairs: list[tuple[str, Any]]) -> tuple[tuple[str, Any], ...]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a member occurs twice")
    pairs.sort()  # by name: no two are the same, so that values are never compared
    return tuple(pairs)


def _integer(literal: str) -> Any:
    return int(literal) if len(literal) <= _INTEGER_DIGITS_MAX else _number(literal)


def _number(literal: str) -> Any:
    """An int if the value is one of at most 40 digits, else digits and exponent, never multiplied out."""
    mantissa, _, exponent_text = literal.lower().partition("e")
    if len(exponent_text) > _EXPONENT_DIGITS_MAX:
        raise ValueError("an exponent that no number has")
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, fraction = mantissa.removeprefix("-").partition(".")
    significant = (whole + fraction).lstrip("0")
    digits = significant.rstrip("0")
    if not digits:
        return 0
    exponent = int(exponent_text or "0") - len(fraction) + len(significant) - len(digits)
    if 0 <= exponent <= _INTEGER_DIGITS_MAX - len(digits):
        return int(sign + digits + "0" * exponent)
    return (_NAN, f"{sign}{digits}e{exponent}")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _scanner(of_object: Callable[[list[tuple[str, Any]]], Any]) -> Callable[[str, int], tuple[Any, int]]:
    decoder = JSONDecoder(object_pairs_hook=of_object, parse_int=_integer, parse_float=_number, parse_constant=_refuse)
    scanner: Callable[[str, int], tuple[Any, int]] = decoder.scan_once  # type: ignore[attr-defined] # its stub lacks it
    return scanner


_SCAN, _SCAN_TO_SELECT = _scanner(_object), _scanner(_members)


def _depth(content: bytes) -> int:
    brackets = _STRING.sub(b"", content).translate(None, _NOT_BRACKETS)
    return max(accumulate(1 if bracket in b"[{" else -1 for bracket in brackets), default=0)


def _written(tree: Any) -> Any:
    """The tree as `_SCAN` would have made it: its objects as tuples of sorted members."""
    if isinstance(tree, dict):
        return tuple((name, _written(tree[name])) for name in sorted(tree))
    return [_written(element) for element in tree] if isinstance(tree, list) else tree


def _selected(tree: Any, only: Iterable[str], excluded: Iterable[str]) -> Any:
    tree = _without(tree, excluded)
    return {pointer: value for pointer in only for value in _values_at(tree, pointer)} if only else tree


def _without(tree: Any, pointers: Iterable[str]) -> Any:
    """The tree without these values. In an array infinity takes the place: no other element moves up."""
    for pointer in pointers:
        parent, _, last = pointer.rpartition("/")
        for container in _values_at(tree, parent):
            place = _place(container, _unescaped(last))
            if isinstance(container, dict):
                container.pop(place, None)
            elif place is not None:
                container[place] = _INFINITY
    return tree


def _values_at(tree: Any, pointer: str) -> list[Any]:
    """The value that a JSON Pointer names, or nothing."""
    for token in pointer.split("/")[1:]:
        place = _place(tree, _unescaped(token))
        if place is None:
            return []
        tree = tree[place]
    return [tree]


def _place(container: Any, token: str) -> Any:
    if isinstance(container, dict) and token in container:
        return token
    if isinstance(container, list) and _INDEX.fullmatch(token) and int(token) < len(container):
        return int(token)
    return None


def _unescaped(token: str) -> str:
    return token.replace("~1", "/").replace("~0", "~")
