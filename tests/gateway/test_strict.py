"""What is refused before anything else, judged on values alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrysafe.gateway.strict import answer_fault, asks_for_upgrade, fault, origin_form, target_of

HOST = (b"host", b"api.example")


def status(*headers, method="POST", version="1.1", target=b"/orders"):
    """What a request is refused with; None if it is not."""
    found = fault(method, version, target, headers)
    return found and found.status


@pytest.mark.parametrize(
    "headers",
    [
        (HOST,),
        (HOST, (b"content-length", b"0")),
        (HOST, (b"content-length", b"17 ")),
        (HOST, (b"transfer-encoding", b"chunked")),
        (HOST, (b"transfer-encoding", b" Chunked\t")),
        ((b"host", b"[2001:db8::1]:8080"),),
        ((b"host", b""),),
        (HOST, (b"x-tab", b"a\tb")),
        (HOST, (b"x-name", "Zoë".encode())),
    ],
)
def test_requests_in_order_pass(headers):
    """What HTTP allows and two servers read alike is not refused."""
    assert status(*headers) is None


@pytest.mark.parametrize(
    "headers",
    [
        (HOST, (b"content-length", b"5"), (b"transfer-encoding", b"chunked")),
        (HOST, (b"content-length", b"5"), (b"content-length", b"5")),
        (HOST, (b"content-length", b"5, 5")),
        (HOST, (b"content-length", b"+5")),
        (HOST, (b"content-length", b"-5")),
        (HOST, (b"content-length", b"0x5")),
        (HOST, (b"content-length", b"5_0")),
        (HOST, (b"content-length", "\u0665".encode())),
        (HOST, (b"content-length", b"")),
        (HOST, (b"content-length", b"9" * 19)),
        (HOST, (b"transfer-encoding", b"gzip, chunked")),
        (HOST, (b"transfer-encoding", b"identity")),
        (HOST, (b"transfer-encoding", b",chunked")),
        (HOST, (b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")),
        (HOST, (b"transfer-encoding", b"identity"), (b"transfer-encoding", b"chunked")),
        (HOST, (b"transfer-encoding", b"\x0bchunked")),
        (HOST, (b"transfer-encoding", b"")),
        (HOST, (b"x", b"a\nb")),
        (HOST, (b"x", b"a\rb")),
        (HOST, (b"x", b"a\0b")),
        (HOST, (b"x", b"a\x7fb")),
        (HOST, (b"x y", b"a")),
        (HOST, (b"x\t", b"a")),
        (HOST, (b"", b"a")),
        (HOST, (b"x:", b"a")),
        (HOST, (b"x", b"caf\xe9")),
        (HOST, (b"x", b"\xc3"), (b"y", b"\xa9")),
        (HOST, (b"x\n", b"a")),
        (),
        (HOST, HOST),
        ((b"host", b"a@b"),),
        ((b"host", b"a/b"),),
        ((b"host", b"a b"),),
        ((b"host", b"a:99999999"),),
    ],
)
def test_doubtful_requests_are_refused(headers):
    """What two servers could read differently goes no further."""
    assert status(*headers) == 400


@pytest.mark.parametrize(
    "target", [b"*", b"orders", b"http://api.example/", b"/a#b", b"/a b", b"/\xc3\xa9", b"/a\x7f", b"", b"/a\n"]
)
def test_targets_that_are_no_path_are_refused(target):
    """Only a path goes on, and only of characters that a path has."""
    assert status(HOST, target=target) == 400


@pytest.mark.parametrize(
    "target", [b"/", b"//x/y", b"/a/../b", b"/%2e%2e/%00", b"/a?b?c=d", b"/a?", b'/a|b\\c^`{}"<>[]']
)
def test_targets_are_not_judged_by_taste(target):
    """Dot segments, escapes and characters that should be escaped are the upstream's to judge."""
    assert status(HOST, target=target) is None


@pytest.mark.parametrize(
    ("method", "version", "expected"),
    [("CONNECT", "1.1", 501), ("GET", "0.9", 505), ("GET", "2.0", 505), ("GET", "1.0", None)],
)
def test_method_and_version(method, version, expected):
    """Tunnels and other versions of HTTP are refused for what they are."""
    assert status(HOST, method=method, version=version) == expected


def test_chunks_are_of_version_1_1():
    """HTTP/1.0 has no chunks; a server that speaks it reads something else."""
    assert status(HOST, (b"transfer-encoding", b"chunked"), version="1.0") == 400


def test_version_1_0_needs_no_host():
    """HTTP/1.0 did not know the field."""
    assert status(version="1.0") is None


@pytest.mark.parametrize(
    ("target", "host", "expected"),
    [
        (b"/a?b", b"x", b"/a?b"),
        (b"http://API.example:80/a/../b?c", b"api.example:80", b"/a/../b?c"),
        (b"HTTPS://api.example?c", b"api.example", b"/?c"),
        (b"http://api.example", b"api.example", b"/"),
        (b"http://evil.example/a", b"api.example", None),
        (b"http://api.example@evil.example/a", b"api.example", None),
        (b"ftp://api.example/a", b"api.example", None),
        (b"api.example:80", b"api.example:80", None),
        (b"*", b"api.example", None),
    ],
)
def test_absolute_targets_lose_their_host(target, host, expected):
    """A whole URL is accepted for the host that was asked, and only its path is used."""
    assert origin_form(target, ((b"host", host),)) == expected


def test_the_exact_target_goes_before_what_asgi_says():
    """An empty query is not lost where the server tells the target; where it does not, ASGI's must do."""
    connection = {"raw_path": b"/a", "query_string": b"", "retrysafe.target": b"/a?"}
    assert target_of(connection) == b"/a?"
    del connection["retrysafe.target"]
    assert target_of(connection) == b"/a"
    assert target_of({"raw_path": b"/a", "query_string": b"b=c"}) == b"/a?b=c"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (((b"connection", b"keep-alive, Upgrade"), (b"upgrade", b"websocket")), True),
        (((b"connection", b"upgrade"), (b"upgrade", b"h2c")), True),
        (((b"upgrade", b"websocket"),), False),
        (((b"connection", b"upgrade"),), False),
    ],
)
def test_what_asks_for_another_protocol(headers, expected):
    """It takes both fields to ask."""
    assert asks_for_upgrade(headers) is expected


@pytest.mark.parametrize(
    ("code", "headers", "usable"),
    [
        (200, ((b"Content-Length", b"2"), (b"X", b"caf\xe9")), True),
        (101, (), False),
        (600, (), False),
        (200, ((b"Content-Length", b"2"), (b"Content-Length", b"3")), False),
        (200, ((b"Content-Length", b"2"), (b"Content-Length", b"2")), True),
        (200, ((b"Content-Length", b"x"),), False),
        (200, ((b"X Y", b"a"),), False),
        (200, ((b"X", b"a\nSet-Cookie: b"),), False),
    ],
)
def test_answers_that_cannot_be_passed_on(code, headers, usable):
    """An answer that a client could read differently is none."""
    assert (answer_fault(code, headers) is None) is usable


@given(st.binary(max_size=12), st.sampled_from([b"content-length", b"transfer-encoding"]))
def test_no_framing_but_the_plain_one_passes(value, name):
    """Whatever stands in a framing field, it passes only as digits or as `chunked`."""
    plain = (
        value.strip().isdigit() and value.isascii()
        if name == b"content-length"
        else value.strip().lower() == b"chunked"
    )
    assert (status(HOST, (name, value)) is None) is bool(plain)
