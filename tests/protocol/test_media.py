from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrysafe.protocol.media import MediaType, media_type, parameters


@pytest.mark.parametrize(
    ("lines", "media"),
    [
        ([], MediaType(b"", b"", b"")),
        ([b""], MediaType(b"", b"", b"")),
        ([b"application/json"], MediaType(b"application/json", b"", b"")),
        ([b" Application/JSON ; Charset=UTF-8"], MediaType(b"application/json", b"", b"")),
        ([b'application/json; charset="utf8"; x=y'], MediaType(b"application/json", b"", b"")),
        ([b"application/json;"], MediaType(b"application/json", b"", b"")),
        ([b"text/plain; charset=ISO-8859-1"], MediaType(b"text/plain", b"iso-8859-1", b"")),
        ([b"multipart/form-data; boundary=aB"], MediaType(b"multipart/form-data", b"", b"aB")),
        ([b'multipart/form-data; boundary="a;b"; charset=utf-8'], MediaType(b"multipart/form-data", b"", b"a;b")),
        ([b"text/plain; boundary=x"], MediaType(b"text/plain", b"", b"")),
        # not interpreted
        ([b"application/json", b"text/plain"], MediaType(b"application/json, text/plain", b"", b"")),
        ([b"application/json; a=1; a=2"], MediaType(b"application/json; a=1; a=2", b"", b"")),
        ([b"application/json; charset=utf-8, text/x"], MediaType(b"application/json; charset=utf-8, text/x", b"", b"")),
        ([b"application/json; charset"], MediaType(b"application/json; charset", b"", b"")),
        ([b'a/b; c="d'], MediaType(b'a/b; c="d', b"", b"")),
    ],
)
def test_media_types(lines, media):
    """Essence and charset are folded, other parameters dropped; what is ambiguous is kept whole."""
    assert media_type(lines) == media


@pytest.mark.parametrize(
    ("value", "is_json"),
    [
        (b"application/json", True),
        (b"application/vnd.api+json; profile=x", True),
        (b"application/merge-patch+json", True),
        (b"application/json; charset=utf-16", False),
        (b"application/x-ndjson", False),
        (b"application/jsonp", False),
        (b"text/html, application/a+json", False),
        (b"+json", False),
        (b"text/plain", False),
        (b"", False),
    ],
)
def test_what_is_json(value, is_json):
    """JSON is JSON by its name, and only in UTF-8."""
    assert media_type([value]).is_json is is_json


def test_what_is_a_form():
    """A form is a form by its name, and only in UTF-8."""
    assert media_type([b"application/x-www-form-urlencoded; charset=UTF-8"]).is_form
    assert not media_type([b"application/x-www-form-urlencoded; charset=latin1"]).is_form


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b"", {}),
        (b"; ;", {}),
        (b"; A=b", {b"a": b"b"}),
        (rb'; a="b\"; c=d"', {b"a": rb"b\"; c=d"}),
        (b"; filename*=UTF-8''x%20y", {b"filename*": b"UTF-8''x%20y"}),
        (b"; a=", {b"a": b""}),
        (b"; a=b c=d", None),
        (b"; a=b; A=c", None),
        (b"; =b", None),
        (b"a=b", None),
        (b'; a="b', None),
        (rb'; a="b\"', None),
    ],
)
def test_parameters(text, named):
    """A list of parameters is read strictly: it is understood whole, or not at all."""
    assert parameters(text) == named


@given(st.dictionaries(st.from_regex(rb"[a-z]{1,3}", fullmatch=True), st.from_regex(rb"[^\"\\\r\n]*", fullmatch=True)))
def test_what_is_written_is_read(named):
    """Whatever stands between quotes comes back, delimiters too."""
    assert parameters(b"".join(b'; %s="%s"' % pair for pair in named.items())) == named


@pytest.mark.parametrize(
    "text", [b";" * 60_000, b"; a=" + b'"\\' * 30_000, b";" + b" " * 60_000 + b"x", b" " * 60_000 + b"x"]
)
def test_reading_takes_time_in_proportion(text):
    """Nothing makes the reader start over again: with these, that would take minutes."""
    assert not parameters(text)
