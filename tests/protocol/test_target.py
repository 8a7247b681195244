from __future__ import annotations

from operator import itemgetter
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrysafe.protocol.target import normal_path, sorted_pairs


@pytest.mark.parametrize(
    ("sent", "normal"),
    [
        (b"/charges", b"/charges"),
        (b"", b"/"),
        (b"/", b"/"),
        (b"/%63harges", b"/charges"),
        (b"/%7euser/%2D%5f", b"/~user/-_"),
        (b"/a%2fb", b"/a%2Fb"),
        (b"/a%2Fb", b"/a%2Fb"),
        (b"/caf%c3%a9", b"/caf%C3%A9"),
        (b"/100%", b"/100%"),
        (b"/%zz%4", b"/%zz%4"),
        (b"/%2541", b"/%2541"),  # undone once, never twice
        (b"/a/./b/../c", b"/a/c"),
        (b"/a/%2e%2E/c", b"/c"),
        (b"/a/b/..", b"/a/"),
        (b"/a/b/.", b"/a/b/"),
        (b"/..", b"/"),
        (b"/../../a", b"/a"),
        (b"/a//../b", b"/a/b"),
        (b"/a//b", b"/a//b"),
        (b"//a", b"//a"),
        (b"/a/", b"/a/"),
        (b"/.well-known/x", b"/.well-known/x"),
        (b"/a/...", b"/a/..."),
        (b"/A", b"/A"),
        (b"/a+b", b"/a+b"),
        (b"/caf\xe9", b"/caf\xe9"),
    ],
)
def test_a_path_has_one_spelling(sent, normal):
    """Needless escapes and dot segments go; what is reserved, doubled or broken stays."""
    assert normal_path(sent) == normal


def by_the_rfc(path: bytes) -> bytes:
    """RFC 3986, 5.2.4, step by step."""
    output = b""
    while path:
        if path.startswith(b"/./") or path == b"/.":
            path = b"/" + path[3:]
        elif path.startswith(b"/../") or path == b"/..":
            path = b"/" + path[4:]
            output = output[: max(output.rfind(b"/"), 0)]
        else:
            end = path.find(b"/", 1)
            segment = path if end < 0 else path[:end]
            output += segment
            path = path[len(segment) :]
    return output


@given(st.lists(st.sampled_from([b"/", b".", b"..", b"a", b"/.."]), max_size=10))
def test_dot_segments_go_as_the_rfc_says(pieces):
    """The quick way and the algorithm of the RFC give the same path."""
    path = b"/" + b"".join(pieces)
    assert normal_path(path) == by_the_rfc(path)


@given(st.lists(st.sampled_from([b"/", b".", b"%2e", b"%2E", b"%2f", b"%41", b"%c3", b"a"]), max_size=10))
def test_a_normal_path_is_normal(pieces):
    """It does not matter how often a proxy did the same."""
    path = normal_path(b"/" + b"".join(pieces))
    assert normal_path(path) == path


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        (b"", []),
        (b"&&", []),
        (b"b=2&a=1", [b"a", b"1", b"b", b"2"]),
        (b"a=2&b=x&a=1", [b"a", b"2", b"a", b"1", b"b", b"x"]),
        (b"a", [b"a", b""]),
        (b"a=", [b"a", b""]),
        (b"=a", [b"", b"a"]),
        (b"a=b=c", [b"a", b"b=c"]),
        (b"a=b+c%20d%2Be", [b"a", b"b c d+e"]),
        (b"%61=%e9", [b"a", b"\xe9"]),
        (b"a=%zz", [b"a", b"%zz"]),
        (b"a=1;b=2", [b"a", b"1;b=2"]),
        (b"a%3Db=c%26d", [b"a=b", b"c&d"]),
    ],
)
def test_pairs_are_decoded_and_sorted_by_name(text, pairs):
    """Values of one name keep their order, because to applications they are a list."""
    assert sorted_pairs(text) == pairs


def test_excluded_names_are_compared_decoded():
    """A parameter may be left out, however its name is escaped; all its values go."""
    assert sorted_pairs(b"a=1&%73ig=x&sig=y&sigma=2", [b"sig"]) == [b"a", b"1", b"sigma", b"2"]


@given(st.lists(st.sampled_from([b"a", b"b", b"=", b"&", b"+", b"%", b"%61", b"%26", b"%3d", b"%e9"]), max_size=12))
def test_pairs_agree_with_the_standard_library(pieces):
    """Nothing is lost and nothing is decoded otherwise than applications decode it."""
    text = b"".join(pieces)
    pairs = parse_qsl(text.decode(), keep_blank_values=True, encoding="latin1")
    assert sorted_pairs(text) == [part.encode("latin1") for pair in sorted(pairs, key=itemgetter(0)) for part in pair]
