"""What needs no database: statements in the style of each driver, and answers of every framework as responses."""

from __future__ import annotations

import django.http
import flask
import pytest
from starlette.responses import JSONResponse
from starlette.responses import Response as StarletteResponse

from retrysafe.errors import CallerError
from retrysafe.model import Response
from retrysafe.operation.connections import spelled
from retrysafe.operation.responses import response_of
from tests.operation.django_setup import set_up

set_up()

VALUES: dict[str, bytes | int] = {"a": 1, "b": b"2", "c": 3}
STATEMENT = "SELECT :b::text, CAST(:a AS bigint), :b"


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ("named", (STATEMENT, {"a": 1, "b": b"2"})),
        ("pyformat", ("SELECT %(b)s::text, CAST(%(a)s AS bigint), %(b)s", {"a": 1, "b": b"2"})),
        ("format", ("SELECT %s::text, CAST(%s AS bigint), %s", (b"2", 1, b"2"))),
        ("qmark", ("SELECT ?::text, CAST(? AS bigint), ?", (b"2", 1, b"2"))),
        ("numeric_dollar", ("SELECT $1::text, CAST($2 AS bigint), $1", (b"2", 1))),
    ],
)
def test_a_statement_in_every_style(style, expected):
    """A cast is no value, and what the statement has no use for is left out."""
    assert spelled(STATEMENT, style, VALUES) == expected


def _of_django():
    response = django.http.HttpResponse(b"x", status=202, content_type="text/plain", headers={"X-A": "1"})
    response.set_cookie("seen", "yes")
    return response


def _of_flask():
    response = flask.Response("x", status=202, mimetype="text/plain")
    response.headers.add("X-A", "1")
    response.set_cookie("seen", "yes")
    return response


def _of_starlette():
    response = StarletteResponse("x", 202, {"x-a": "1"}, "text/plain")
    response.set_cookie("seen", "yes")
    return response


@pytest.mark.parametrize("answer", [_of_django(), _of_flask(), _of_starlette()], ids=["django", "flask", "starlette"])
def test_a_response_of_a_framework(answer):
    """Status, content, fields and cookies, and the length exactly once."""
    response = response_of(answer, 200, frozenset())
    assert (response.status, response.body) == (202, b"x")
    fields = [(name.lower(), line) for name, line in response.headers]
    assert fields.count((b"content-length", b"1")) == 1
    assert (b"x-a", b"1") in fields
    assert (response.value(b"content-type") or b"").startswith(b"text/plain")
    assert (response.value(b"set-cookie") or b"").startswith(b"seen=yes")


@pytest.mark.parametrize(
    ("data", "content"),
    [({"a": [1, "é"]}, '{"a":[1,"é"]}'.encode()), ([], b"[]"), (None, b"null"), ("x", b'"x"'), (True, b"true")],
)
def test_data(data, content):
    """As JSON, with the status that is given."""
    response = response_of(data, 201, frozenset())
    fields = ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(content)))
    assert response == Response(201, fields, content)


def test_fields_that_are_ours_and_lengths_that_are_none():
    """A handler cannot set the marker of replays; and a 204 has no length."""
    answer = JSONResponse(None, 204, {"Idempotent-Replayed": "true", "x-a": "1"})
    ours = frozenset({b"idempotent-replayed"})
    assert dict(response_of(answer, 200, ours).headers).keys() >= {b"x-a"}
    assert response_of(answer, 200, ours).value(b"idempotent-replayed") is None
    assert response_of(Response(204, ()), 200, ours).headers == ()
    assert response_of(Response(200, (), b"abc"), 200, ours).headers == ((b"content-length", b"3"),)


@pytest.mark.parametrize(
    "answer",
    [
        django.http.StreamingHttpResponse(iter([b"x"])),
        object(),
        {1, 2},
    ],
)
def test_what_has_no_content_yet(answer):
    """A stream, and what is no answer at all."""
    with pytest.raises(CallerError):
        response_of(answer, 200, frozenset())
