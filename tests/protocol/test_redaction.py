"""Redacted content: null for what is named, and every other byte as it was."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrysafe.model import Response
from retrysafe.protocol.redaction import redacted

JSON = ((b"Content-Type", b"application/json"),)


def of(body, *pointers, headers=JSON):
    return redacted(Response(201, headers, body), pointers)


@pytest.mark.parametrize(
    ("body", "pointers", "kept"),
    [
        (b'{"id": 1.50, "token":"s3cret" }', ["/token"], b'{"id": 1.50, "token":null }'),
        (b'{"a":{"b":[1,{"c":"x"}]}}', ["/a/b/1/c"], b'{"a":{"b":[1,{"c":null}]}}'),
        (b'{"a":{"b":1},"c":2}', ["/a/b", "/a", "/c"], b'{"a":null,"c":null}'),
        (b'{"k":1,"k":2,"\\u006b":3}', ["/k"], b'{"k":null,"k":null,"\\u006b":null}'),
        (b'{"a/b":1,"m~n":2}', ["/a~1b", "/m~0n"], b'{"a/b":null,"m~n":null}'),
        (b"[ [1] , [2] ]", ["/1"], b"[ [1] , null ]"),
        (b'[{"t":1},{"t":2}]', ["/0/t", "/1/t"], b'[{"t":null},{"t":null}]'),
        (b'{"a":[]}', ["/a/0", "/b", "/a/b/c"], b'{"a":[]}'),
        (b'{"":{"":"x"}}', ["//"], b'{"":{"":null}}'),
        (b"\n 7 ", ["/a"], b"\n 7 "),
        ('{"ключ":"тайна","b":"ß"}'.encode(), ["/ключ"], '{"ключ":null,"b":"ß"}'.encode()),
    ],
)  # fmt: skip
def test_null_stands_where_the_value_was(body, pointers, kept):
    """Nothing else moves, not even a blank; a pointer that names nothing does nothing."""
    assert of(body, *pointers) == kept


trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=15,
)


def paths(tree, before=()):
    """Every place in a tree."""
    inner = enumerate(tree) if isinstance(tree, list) else tree.items() if isinstance(tree, dict) else ()
    for name, value in inner:
        yield (*before, name)
        yield from paths(value, (*before, name))


@given(trees, st.data(), st.sampled_from([None, 1, "\t"]), st.booleans())
def test_it_is_the_tree_with_null_there(tree, data, indent, ascii_only):
    """Whatever the tree, the place and the spelling."""
    known = list(paths(tree))
    path = data.draw(st.sampled_from(known)) if known else ("nowhere",)
    expected = copy.deepcopy(tree)
    if known:
        place = expected
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = None
    pointer = "".join("/" + str(name).replace("~", "~0").replace("/", "~1") for name in path)
    text = json.dumps(tree, indent=indent, ensure_ascii=ascii_only)
    try:
        body = text.encode()
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8
        return
    kept = of(body, pointer)
    assert kept is not None
    assert json.loads(kept) == expected


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'{"token":"s3cret"}', ()),
        (b'{"token":"s3cret"}', ((b"content-type", b"text/html"),)),
        (b'{"token":"s3cret"}', (*JSON, (b"content-encoding", b"identity"))),
        (b'{"token":"s3cret"}', (*JSON, *JSON)),
        (b'{"token":"s3cret"', JSON),
        (b'{"token":"s3cret"} {}', JSON),
        (b"\xef\xbb\xbf{}", JSON),
        (b'{"token":"\xff"}', JSON),
        (b"[" * 100_000, JSON),
        (b"", JSON),
    ],
)
def test_what_cannot_be_read_is_not_kept(body, headers):
    """Where it cannot be told what to leave out, all of it is left out."""
    assert of(body, "/token", headers=headers) is None


def test_json_goes_by_its_type():
    """Problem documents and others whose type ends in `+json` are JSON too."""
    assert of(b'{"token":1}', "/token", headers=((b"content-type", b"application/problem+json"),)) == b'{"token":null}'
