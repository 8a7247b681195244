from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrysafe.protocol.canonical import canonical_json

SAME = [
    [b'{"a":1,"b":2}', b' { "b" : 2 ,\r\n\t"a" : 1 } '],
    [b'"a"', rb'"\u0061"'],
    ['"é😀"'.encode(), rb'"\u00e9\ud83d\ude00"', rb'"\u00E9\uD83D\uDE00"'],
    [rb'"\/"', b'"/"', rb'"\u002f"'],
    [rb'"\n"', rb'"\u000a"', rb'"\u000A"'],
    [b"1", b"1.0", b"1e0", b"10e-1", b"1.000E+0", b"0.1e1", b"1E-0"],
    [b"0", b"-0", b"0.0", b"-0.0e7", b"0e999"],
    [b"1.5", b"15e-1", b"1.50", b"0.15e+01"],
    [b"1e40", b"10e39", b"1" + b"0" * 40, b"1" + b"0" * 40 + b".0"],
    [b"1e39", b"1" + b"0" * 39],
    [b"-1e40", b"-1" + b"0" * 40],
    [b"1e999999999", b"10e999999998", b"0.1E1000000000"],
    [b"1e-999999999", b"0.1e-999999998"],
    [b"9" * 5_000, b"9" * 5_000 + b".0"],
]

DIFFERENT = [
    b"null", b"true", b"false", b"0", b"1", b"-1", b'"1"', b'""', b"[]", b"{}", b"[[]]", b"[{}]", b"[1]", b"[1,2]",
    b"[2,1]", b'["1"]', b'[1,"2"]', b'{"a":1}', b'{"a":"1"}', b'{"a":null}', b'{"A":1}', b'{"a":[1]}', b'{"a":{}}',
    b'{"a":1,"b":2}', b'{"a":2,"b":1}', b'["a",1]', b'"NaN"', b'["NaN","15e-1"]', b"1.5", b'"1.5"', b'"15e-1"',
    b'[null,"15e-1"]', b"[1.5]", b"-1.5", b"0.15", b"15", b"9007199254740992", b"9007199254740993",
    b"9007199254740993.5", b"1234567890123456789", b"1234567890123456790", b"0.1", b"0.10000000000000001", b"1e400",
    b"1e401", b"1e-400", b"1e-401", b"1e999999999", b"1e999999998", b"9" * 5_000, b"9" * 4_999 + b"8",
    '"é"'.encode(), '"e\u0301"'.encode(), rb'"\u0000"', rb'"\\u0000"', b'" "', b'"a b"',
]  # fmt: skip

WITHOUT_MEANING = [
    b"", b" ", b"{", b"[1,]", b"{'a':1}", b"01", b"1.", b".5", b"+1", b"1e", b"tru", b"1 2", b"[1] x",
    b"NaN", b"Infinity", b"-Infinity", b'{"a":NaN}', b"[-Infinity]",
    b'{"a":1,"a":1}', b'{"amount":1,"amount":2}', rb'{"a":1,"\u0061":2}', b'[{"b":{"a":1,"a":2}}]',
    rb'"\ud800"', rb'"\udc00\ud800"', rb'{"\ud800":1}', b'"\xff"', b'"\xed\xa0\x80"', b"\xef\xbb\xbf{}", b'"\x00"',
    b'"a\nb"', '{"a":1}'.encode("utf-16"), b"1e" + b"9" * 50, b"[1e" + b"9" * 60_000 + b"]",
]  # fmt: skip


@pytest.mark.parametrize("spellings", SAME)
def test_spellings_of_one_value(spellings):
    """Order, space, escapes and the way a number is written do not matter."""
    assert len({canonical_json(spelling) for spelling in spellings} - {None}) == 1
    assert None not in {canonical_json(spelling) for spelling in spellings}


def test_different_values():
    """Everything else does: types, order in arrays, presence, and every digit of a number."""
    canonical = {text: canonical_json(text) for text in DIFFERENT}
    assert None not in canonical.values()
    assert [(a, b) for a, b in combinations(DIFFERENT, 2) if canonical[a] == canonical[b]] == []


@pytest.mark.parametrize("text", WITHOUT_MEANING, ids=lambda text: repr(text[:20]))
def test_what_has_no_single_meaning(text):
    """Nobody decides here which of two members wins, or what half a character is."""
    assert canonical_json(text) is None


def test_a_huge_exponent_stays_text():
    """A number of a billion digits is never written out."""
    assert len(canonical_json(b"[" + b",".join([b"1e999999999"] * 1_000) + b"]") or b"") < 30_000


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_depth(opening, closing):
    """Nesting has a limit of its own, far from where the interpreter would give up."""
    assert canonical_json(opening * 100 + b"1" + closing * 100) is not None
    assert canonical_json(opening * 101 + b"1" + closing * 101) is None
    assert canonical_json(opening * 10_000 + b"1" + closing * 10_000) is None
    assert canonical_json(opening * 10_000) is None


def test_brackets_side_by_side_or_in_strings_are_not_depth():
    """Only nesting counts."""
    assert canonical_json(b"[" + b",".join([b"[[]]"] * 1_000) + b"]") is not None
    assert canonical_json(b"[[]," + b"[" * 99 + b"]" * 99 + b"]") is not None
    assert canonical_json(b"[[],[],{}," + b"[" * 100 + b"]" * 100 + b"]") is None
    assert canonical_json(json.dumps({"[" * 500: ["[" * 500, '\\"[{' * 500]}).encode()) is not None


def test_the_form_of_numbers():
    """Stored fingerprints are made of it: 40 digits of an integer, and 20 of an exponent, are where it changes."""
    assert canonical_json(b"[" + b"9" * 40 + b",1e39]") == b"[" + b"9" * 40 + b", 1" + b"0" * 39 + b"]"
    assert canonical_json(b"[" + b"9" * 41 + b"]") == b"[(nan, '" + b"9" * 41 + b"e0')]"
    assert canonical_json(b"-1e40") == b"(nan, '-1e40')"
    assert canonical_json(b"1e" + b"9" * 20) == b"(nan, '1e" + b"9" * 20 + b"')"
    assert canonical_json(b"1e" + b"9" * 21) is None


@pytest.mark.parametrize("text", [b'["' + b'\\"' * 32_000, b"[" * 101 + b'"' * 65_000, b"[" * 101 + b'"\\' * 32_000])
def test_strings_that_do_not_end(text):
    """Text made to be read again and again is read once: otherwise these would take minutes."""
    assert canonical_json(text) is None


# --- any tree, any spelling -----------------------------------------------------------------------

NUMBERS = st.integers(-(10**50), 10**50).map(Decimal) | st.decimals(allow_nan=False, allow_infinity=False, places=4)
STRINGS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.sampled_from(
    ["", "a", "b", "NaN", "15e-1"]
)
TREES = st.recursive(
    st.none() | st.booleans() | NUMBERS | STRINGS | st.sampled_from([Decimal(0), Decimal(1), Decimal("1.5")]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STRINGS, inner, max_size=3),
    max_leaves=12,
)


def meaning(tree: Any) -> Any:
    """What a tree says, as something that compares as it should: `True` is not 1, and 1.0 is."""
    match tree:
        case Decimal():
            return "number", Fraction(tree)
        case list():
            return "array", tuple(meaning(value) for value in tree)
        case dict():
            return "object", frozenset((name, meaning(value)) for name, value in tree.items())
        case _:
            return type(tree).__name__, tree


BOTH = (True, False)


class Speller:
    """Writes a tree as JSON, each time another way."""

    def __init__(self, draw: Any) -> None:
        self._pick = lambda *choices: draw(st.sampled_from(choices))
        self._shuffled = lambda items: draw(st.permutations(items))

    def value(self, tree: Any) -> str:
        """The tree as text."""
        space = self._pick("", " ", "\n\t")
        return f"{space}{self._bare(tree)}{space}"

    def _bare(self, tree: Any) -> str:
        match tree:
            case Decimal():
                return self._number(tree)
            case str():
                return self._string(tree)
            case list():
                return "[" + ",".join(map(self.value, tree)) + "]"
            case dict():
                members = (f"{self._string(name)}:{self.value(tree[name])}" for name in self._shuffled(list(tree)))
                return "{" + ",".join(members) + "}"
            case _:
                return json.dumps(tree)

    def _number(self, number: Decimal) -> str:
        sign, digits, exponent = number.as_tuple()
        assert isinstance(exponent, int)
        text = "".join(map(str, digits))
        shift = self._pick(0, 1, 5)
        plain = f"{number:f}"
        scientific = f"{text}{'0' * shift}{self._pick('e', 'E')}{exponent - shift}"
        fraction = f"0.{text}e{exponent + len(text)}"
        chosen = fraction if text.startswith("0") else self._pick(scientific, fraction)
        return str(self._pick(plain, ("-" if sign else "") + chosen))

    def _string(self, text: str) -> str:
        if self._pick(*BOTH):
            return json.dumps(text, ensure_ascii=False)
        units = text.encode("utf-16-be").hex()
        return '"' + "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)) + '"'


@given(st.data(), TREES)
def test_one_tree_has_one_canonical_form(data, tree):
    """However it is written."""
    one, other = (Speller(data.draw).value(tree).encode() for _ in range(2))
    assert canonical_json(one) == canonical_json(other) is not None


@given(st.data(), TREES, TREES)
def test_two_trees_have_two(data, one, other):
    """Whatever they are, if they do not say the same."""
    texts = [Speller(data.draw).value(tree).encode() for tree in (one, other)]
    assert (canonical_json(texts[0]) == canonical_json(texts[1])) == (meaning(one) == meaning(other))


@given(
    st.binary(max_size=40)
    | st.lists(st.sampled_from(list(b'{}[]",:0123456789.eE+-\\u dtrfalsn')), max_size=30).map(bytes)
)
def test_any_bytes(content):
    """Nothing that is sent raises, and the canonical form of what has one stands for the same."""
    canonical = canonical_json(content)
    if canonical is not None:
        assert json.loads(content, parse_float=str, parse_int=str) is not Ellipsis


# --- what counts ----------------------------------------------------------------------------------

DOCUMENT = {"amount": 1, "meta": {"at": 5, "a/b": 6, "m~n": 7}, "items": [{"sku": "A"}, {"sku": "B"}, 3], "": 0}


def text_of(changes: dict[str, Any]) -> bytes:
    return json.dumps(DOCUMENT | changes).encode()


@pytest.mark.parametrize(
    ("pointer", "changes"),
    [
        ("/amount", {"amount": 2}),
        ("/amount", {"amount": {"deep": [1]}}),
        ("/meta", {"meta": None}),
        ("/meta/at", {"meta": {"at": 99, "a/b": 6, "m~n": 7}}),
        ("/meta/at", {"meta": {"a/b": 6, "m~n": 7}}),
        ("/meta/a~1b", {"meta": {"at": 5, "a/b": 99, "m~n": 7}}),
        ("/meta/m~0n", {"meta": {"at": 5, "a/b": 6, "m~n": 99}}),
        ("/items/0", {"items": [99, {"sku": "B"}, 3]}),
        ("/items/1/sku", {"items": [{"sku": "A"}, {"sku": "X"}, 3]}),
        ("/", {"": 99}),
    ],
)
def test_an_excluded_value_does_not_count(pointer, changes):
    """Only if it is excluded, and only it."""
    assert canonical_json(text_of(changes)) != canonical_json(text_of({}))
    assert canonical_json(text_of(changes), excluded=[pointer]) == canonical_json(text_of({}), excluded=[pointer])
    beside = {"other": 1}
    assert canonical_json(text_of(beside), excluded=[pointer]) != canonical_json(text_of({}), excluded=[pointer])


@pytest.mark.parametrize(
    "pointer",
    ["/nothing", "/meta/nothing", "/items/3", "/items/01", "/items/-", "/items/x", "/amount/x", "/items/0/0/0"],
)
def test_a_pointer_to_nothing(pointer):
    """It excludes nothing, and selects nothing."""
    assert canonical_json(text_of({}), excluded=[pointer]) == canonical_json(text_of({}))
    assert canonical_json(text_of({}), only=[pointer]) == b"()"


def test_elements_keep_their_places():
    """Leaving an element out does not move the others up, and several can be left out."""
    assert canonical_json(b"[1,2,3]", excluded=["/0"]) != canonical_json(b"[2,3]", excluded=["/9"])
    assert canonical_json(b"[1,2,3]", excluded=["/0", "/1"]) == canonical_json(b"[8,9,3]", excluded=["/0", "/1"])
    assert canonical_json(b'[[0,"15e-1"]]', excluded=["/0/0"]) != canonical_json(b"[1.5]", excluded=["/0/0"])


def test_only_what_is_selected_counts():
    """What is selected counts, and whether it is there; the rest is not looked at."""
    only = ["/amount", "/items/1/sku", "/meta/nothing"]
    same = {"items": [None, {"sku": "B", "x": 1}], "meta": {}, "new": True}
    assert canonical_json(text_of(same), only=only) == canonical_json(text_of({}), only=only)
    others: list[dict[str, Any]] = [
        {"amount": 2},
        {"items": [{"sku": "A"}, {"sku": "C"}]},
        {"meta": {"nothing": None}},
        {"items": []},
    ]
    for changes in others:
        assert canonical_json(text_of(changes), only=only) != canonical_json(text_of({}), only=only)


def test_a_selection_must_still_have_one_meaning():
    """A member that occurs twice makes the text unclear, wherever it stands."""
    assert canonical_json(b'{"a":1,"b":{"c":1,"c":2}}', only=["/a"]) is None
    assert canonical_json(b'{"a":1,"b":{"c":1,"c":2}}', excluded=["/b"]) is None
