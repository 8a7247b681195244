"""What the gateway adds to uvicorn's protocol: trailers stay trailers, heads end, and answers are not mixed up."""

from __future__ import annotations

import threading

import pytest

from retrysafe.gateway.wire import UNDIGESTED_BYTES_MAX
from tests.gateway.origin import OK, answering, origin
from tests.gateway.serving import converse, gateway

KEYED = b"POST /orders HTTP/1.1\r\nHost: a\r\nIdempotency-Key: key-1\r\n"


@pytest.fixture
def upstream():
    """A raw upstream that answers everything."""
    with origin(answering(OK)) as server:
        yield server


@pytest.fixture
def port(upstream):
    """The gateway before it."""
    with gateway(upstream.url) as listening:
        yield listening


def test_a_trailer_is_no_header(upstream, port):
    """An account that is named only after the content is not the request's account."""
    content = b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-Account-Id: victim\r\n\r\n"
    answer, _ = converse(port, KEYED + content)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"scope-missing" in answer
    assert upstream.heads == []


@pytest.mark.parametrize(
    "endless",
    [
        b"GET /" + b"a" * UNDIGESTED_BYTES_MAX,
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * UNDIGESTED_BYTES_MAX,
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * (UNDIGESTED_BYTES_MAX // 6),
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"a" * UNDIGESTED_BYTES_MAX,
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"a" * UNDIGESTED_BYTES_MAX,
    ],
    ids=["target", "field", "fields", "trailers", "extension"],
)
def test_what_has_no_end_is_ended(port, endless):
    """Heads, trailers and extensions that only grow are refused, and not collected."""
    answer, closed = converse(port, endless + b"b" * 600_000, quiet_s=10)  # it is not quiet: it ends
    assert closed
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


def test_a_long_content_is_no_long_head(port):
    """The bound is for what the parser keeps, and a content goes through."""
    answer, _ = converse(port, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n" + b"x" * 900_000)
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_garbage_does_not_answer_for_the_request_before_it():
    """A request that runs is not answered with 400 because bytes behind it are no request."""
    arrived, go_on = threading.Event(), threading.Event()

    def script(line):
        line.request()
        arrived.set()
        assert go_on.wait(10)
        line.send(OK)

    with origin(script) as server, gateway(server.url) as port:
        data = KEYED + b"X-Account-Id: me\r\nContent-Length: 2\r\n\r\nabGARBAGE\r\n\r\n"
        answer, closed = converse(port, data, quiet_s=5)
        assert closed
        assert answer == b""
        assert arrived.wait(10)
        go_on.set()


def test_refusals_close_and_good_requests_do_not(port):
    """A connection on which something was refused is not used again."""
    good, open_after = converse(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    bad, closed_after = converse(port, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    assert (good[:13], open_after) == (b"HTTP/1.1 200 ", False)
    assert (bad[:13], closed_after) == (b"HTTP/1.1 400 ", True)
    assert b'"type":"about:blank"' in bad
