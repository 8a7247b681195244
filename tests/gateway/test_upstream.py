"""What becomes of a request that is sent on: answered, never sent, or unknown."""

from __future__ import annotations

import http.client
import socket
from contextlib import ExitStack, contextmanager

import pytest

from retrysafe.gateway.app import _upstream
from tests.gateway.origin import OK, Origin, answering, origin
from tests.gateway.serving import before, call, configured, gateway, keyed

CODE = "https://retrysafe.dev/problems/"


def silent(line):
    """Read a request and never answer."""
    line.request()
    line.request()


def hanging_up(line):
    """Read a request and close."""
    line.request()


def resetting(line):
    """Read a request and reset."""
    line.request()
    line.reset()


def hanging_up_on_the_second(line):
    """Answer once, then read a request and close."""
    line.request()
    line.send(OK)
    line.request()


# --- nothing is sent twice ------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "POST", "PATCH"])
def test_no_request_is_sent_twice(method):
    """An upstream that accepts, reads and closes sees one connection and one request, whatever the method."""
    with before(hanging_up) as (server, port):
        assert call(port, method).status == 502
        assert len(server.lines) == 1
        assert len(server.heads) == 1


@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
def test_no_request_is_sent_twice_when_a_kept_connection_ends(method):
    """Neither on a connection that was kept from an earlier request."""
    with before(hanging_up_on_the_second) as (server, port):
        assert call(port, "GET").status == 200
        assert call(port, method, "/second").status == 502
        assert len(server.lines) == 1
        assert [head.split(b" ")[1] for head in server.heads] == [b"/", b"/second"]


# --- never sent -----------------------------------------------------------------------------------


def test_a_refused_connection_frees_the_key():
    """Nothing was sent: 502, and the same key runs once the upstream is there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port_of_upstream = listener.getsockname()[1]
    with gateway(f"http://127.0.0.1:{port_of_upstream}") as port:
        refused = keyed(port, "key-1")
        assert (refused.status, refused.json["code"], refused.json["retryable"]) == (502, "upstream-unreachable", True)
        assert call(port, "POST").json["code"] == "upstream-unreachable"
        server = Origin(answering(OK), port_of_upstream)
        assert keyed(port, "key-1").status == 200
        server.close()


@contextmanager
def hanging():
    """An address where a connection is neither made nor refused: the queue of its listener is full."""
    with ExitStack() as clients, socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        for _ in range(4):
            client = clients.enter_context(socket.socket())
            client.settimeout(0)
            client.connect_ex(full.getsockname())
        yield f"http://127.0.0.1:{full.getsockname()[1]}"


@pytest.mark.parametrize(("connect_ms", "silence_ms"), [(200, 60_000), (5_000, 200)])
def test_a_connection_that_is_not_made_in_time_frees_the_key(connect_ms, silence_ms):
    """It is given up, and nothing was sent, whichever of the two limits comes first."""
    limits = {"upstream_connect_timeout_ms": connect_ms, "upstream_timeout_ms": silence_ms}
    with hanging() as url, gateway(url, **limits) as port:
        for _ in range(2):
            assert keyed(port, "key-1").json["code"] == "upstream-unreachable"


def test_tls_that_fails_frees_the_key():
    """Without a handshake nothing was sent."""
    with origin(lambda line: line.send(b"this is no TLS")) as server:
        url = server.url.replace("http:", "https:")
        with gateway(url) as port:
            assert keyed(port, "key-1").json["code"] == "upstream-unreachable"
            assert keyed(port, "key-1").json["code"] == "upstream-unreachable"


@pytest.mark.parametrize("url", ["http://a..b:80", f"http://{'a' * 300}", "http://127.0.0.1:99999"])
def test_an_address_that_cannot_be_used_frees_the_key(url):
    """Neither an address that no URL takes, nor a name that no resolver takes: nothing was sent."""
    with gateway(url) as port:
        for _ in range(2):
            refused = keyed(port, "key-1")
            assert (refused.status, refused.json["code"]) == (502, "upstream-unreachable")
        assert call(port, "GET").json["code"] == "upstream-unreachable"


# --- IPv6 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin_url", "host", "port", "named"),
    [
        ("http://[::1]:9000", "::1", 9000, b"[::1]:9000"),
        ("https://[2001:db8::1]", "2001:db8::1", 443, b"[2001:db8::1]"),
        ("https://[2001:db8::1]:443", "2001:db8::1", 443, b"[2001:db8::1]"),
        ("http://127.0.0.1:80", "127.0.0.1", 80, b"127.0.0.1"),
    ],
)
def test_an_ipv6_upstream_keeps_its_brackets(origin_url, host, port, named):
    """What a connection is made to and what a Host field names, whether or not this machine has IPv6."""
    url = _upstream(configured(origin_url))._url(b"/orders?a=%2F")
    assert (url.host, url.port, url.raw_path_qs) == (host, port, "/orders?a=%2F")
    assert (url.host_port_subcomponent or "").encode() == named


@pytest.mark.parametrize(("setting", "named"), [("upstream", "[::1]"), ("preserve", "127.0.0.1")])
def test_an_ipv6_upstream_is_reached(setting, named):
    """A connection is made to it; where the machine has no IPv6, none can be, and that is what is said."""
    try:
        server = Origin(answering(OK), host="::1")
    except OSError:
        with gateway("http://[::1]:9", host=setting) as port:
            assert keyed(port, "key-1").json["code"] == "upstream-unreachable"
        return
    with gateway(server.url, host=setting) as port:
        assert keyed(port, "key-1").status == 200
        expected = server.port if setting == "upstream" else port
        assert f"\r\nhost: {named}:{expected}\r\n".encode() in server.heads[0].lower()
    server.close()


# --- unknown --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "status"),
    [
        (hanging_up, 502),
        (resetting, 502),
        (silent, 504),
        (answering(b"SSH-2.0-OpenSSH\r\n\r\n"), 502),
        (answering(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"), 502),
        (answering(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nok"), 502),
        (answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok"), 502),
        (answering(b"HTTP/1.1 200 OK\r\nX\x01: y\r\nContent-Length: 2\r\n\r\nok"), 502),
        (answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n"), 502),
        (answering(b"HTTP/1.1 999 Eh\r\nContent-Length: 2\r\n\r\nok"), 502),
    ],
)
def test_an_outcome_that_nobody_knows_is_not_tried_again(script, status):
    """Once there was a connection, a failure leaves the outcome unknown: said once, and no second attempt."""
    with before(script, upstream_timeout_ms=300) as (server, port):
        first = keyed(port, "key-1")
        assert (first.status, first.json["code"], first.json["retryable"]) == (status, "outcome-unknown", False)
        again = keyed(port, "key-1")
        assert (again.status, again.json["code"]) == (409, "outcome-unknown")
        assert len(server.heads) == 1


@pytest.mark.parametrize(("method", "may_repeat"), [("GET", True), ("PUT", True), ("POST", False), ("PATCH", False)])
@pytest.mark.parametrize(("script", "status", "code"), [(hanging_up, 502, "failed"), (silent, 504, "timeout")])
def test_without_a_key_the_client_is_told_the_truth(script, status, code, method, may_repeat):
    """What may have happened must not be repeated, unless repeating it changes nothing."""
    with before(script, upstream_timeout_ms=200) as (_, port):
        answer = call(port, method)
        assert (answer.status, answer.json["type"]) == (status, f"{CODE}upstream-{code}")
        assert answer.json["retryable"] is may_repeat


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ],
)
@pytest.mark.parametrize("key", ["key-1", None])
def test_an_answer_that_breaks_off_is_not_taken_for_whole(answer, key):
    """The client's connection breaks too, and the outcome is unknown."""

    def script(line):
        line.request()
        line.send(answer)

    with before(script) as (server, port):
        with pytest.raises(http.client.IncompleteRead) as broken:
            keyed(port, key) if key else call(port)
        assert broken.value.partial == b"hello"
        if key:
            again = keyed(port, key)
            assert (again.status, again.json["code"]) == (409, "outcome-unknown")
            assert len(server.heads) == 1


def test_a_head_without_its_content_leaves_the_outcome_unknown():
    """Nothing reached the client yet, so it is told; what is recorded is that nobody knows."""

    def script(line):
        line.request()
        line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")

    with before(script) as (server, port):
        for _ in range(2):
            told = keyed(port, "key-1")
            assert (told.status, told.json["code"]) == (409, "outcome-unknown")
        assert len(server.heads) == 1


def test_an_answer_that_falls_silent_is_broken_off():
    """The patience holds within an answer too."""

    def script(line):
        line.request()
        line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        line.request()

    with before(script, upstream_timeout_ms=300) as (_, port), pytest.raises(http.client.IncompleteRead):
        call(port)


def test_the_upstream_can_say_that_nothing_happened():
    """`Idempotency-Effect: none` frees the key, and no client sees the field."""
    failed = b"HTTP/1.1 500 Oops\r\nIdempotency-Effect: none\r\nContent-Length: 4\r\n\r\noops"

    def script(line):
        for answer in (failed, OK):
            line.request()
            line.send(answer)

    with before(script) as (server, port):
        first = keyed(port, "key-1")
        assert (first.status, first.body, first.value("Idempotency-Effect")) == (500, b"oops", None)
        second = keyed(port, "key-1")
        assert (second.status, second.body, second.value("Idempotent-Replayed")) == (200, b"ok", None)
        assert len(server.heads) == 2


def test_a_failure_of_the_upstream_is_an_answer():
    """A 500 that says nothing of effects is recorded and replayed."""
    with before(answering(OK.replace(b"200 OK", b"500 Oops"))) as (server, port):
        assert keyed(port, "key-1").status == 500
        again = keyed(port, "key-1")
        assert (again.status, again.body, again.value("Idempotent-Replayed")) == (500, b"ok", "true")
        assert len(server.heads) == 1


def test_replays_need_no_upstream():
    """What is recorded is answered while the upstream is down."""
    with before(answering(OK)) as (server, port):
        assert keyed(port, "key-1").status == 200
        server.close()
        again = keyed(port, "key-1")
        assert (again.status, again.body, again.value("Idempotent-Replayed")) == (200, b"ok", "true")
        assert keyed(port, "key-2").json["code"] == "upstream-unreachable"
