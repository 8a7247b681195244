"""Streams in both directions, clients that leave, and what is asked before a replay."""

from __future__ import annotations

import http.client
import socket
import threading

import pytest

from retrysafe.protocol.policy import Policy
from tests.gateway.origin import OK, answering
from tests.gateway.serving import before, call, keyed

# --- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["key-1", None])
def test_answers_stream(key):
    """A piece reaches the client before the next one is made, protected or not."""
    go_on = threading.Event()

    def script(line):
        line.request()
        line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        assert go_on.wait(10)
        line.send(b"3\r\ntwo\r\n0\r\n\r\n")

    with before(script) as (_, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        fields = {"Idempotency-Key": key, "X-Account-Id": "me"} if key else {}
        connection.request("POST", "/", b"x", fields)
        response = connection.getresponse()
        assert response.read(3) == b"one"
        go_on.set()
        assert response.read() == b"two"
        connection.close()


def test_requests_stream():
    """Without a key, a piece reaches the upstream before the client makes the next one; nothing is timed meanwhile."""
    seen = threading.Event()
    pieces = []

    def script(line):
        line.head()
        for piece in iter(line.chunk, b""):
            pieces.append(piece)
            seen.set()
        line.send(OK)

    def made():
        yield b"one"
        assert seen.wait(10)
        assert not threading.Event().wait(0.5)  # longer than the upstream may be silent
        yield b"two"

    with before(script, upstream_timeout_ms=300) as (_, port):
        assert call(port, "POST", "/", made()).status == 200
    assert pieces == [b"one", b"two"]


def test_an_early_answer_is_passed_on():
    """An upstream need not read everything before it says no."""
    enough = threading.Event()

    def script(line):
        line.head()
        line.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        enough.set()

    def endless():
        yield b"x" * 1_000
        assert enough.wait(10)

    with before(script) as (_, port):
        answer = call(port, "POST", "/", endless())
        assert (answer.status, answer.body) == (413, b"no")


def test_an_endless_answer_to_a_protected_request_ends():
    """When the handler has had all the time of its policy, the upstream is let go, and the outcome is unknown."""
    ended = threading.Event()

    def script(line):
        line.request()
        line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while not threading.Event().wait(0.02):
                line.send(b"3\r\none\r\n")
        finally:
            ended.set()

    with before(script, policy=Policy(lease="100ms", execution_max="300ms")) as (_, port):
        with pytest.raises(http.client.IncompleteRead):
            keyed(port, "key-1")
        assert ended.wait(10)
        assert keyed(port, "key-1").json["code"] == "outcome-unknown"


def test_an_outcome_is_waited_for_longer_than_its_lease():
    """An upstream that has not begun to answer is not let go: what it says late is still recorded."""

    def script(line):
        line.request()
        assert not threading.Event().wait(0.6)
        line.send(OK)

    with before(script, policy=Policy(lease="100ms", execution_max="200ms")) as (server, port):
        assert keyed(port, "key-1").status == 200
        assert keyed(port, "key-1").value("Idempotent-Replayed") == "true"
        assert len(server.heads) == 1


# --- clients that leave ---------------------------------------------------------------------------


def leave_after(port, data, event):
    """Send, wait for the event, and close the connection without reading."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(data)
        assert event.wait(10)


def test_a_client_that_leaves_ends_its_request():
    """Without a key nobody needs the answer: the upstream sees the connection close."""
    arrived, ended = threading.Event(), threading.Event()

    def script(line):
        line.request()
        arrived.set()
        assert line.head() == b""
        ended.set()

    with before(script) as (_, port):
        leave_after(port, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab", arrived)
        assert ended.wait(10)


def test_a_client_that_leaves_does_not_end_a_protected_request():
    """With a key the outcome counts: the upstream goes on, and a retry gets its answer."""
    arrived, left = threading.Event(), threading.Event()

    def script(line):
        while line.request()[0]:
            arrived.set()
            assert left.wait(10)
            line.send(OK)

    fields = b"X-Account-Id: me\r\nIdempotency-Key: key-1\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\norder"
    with before(script) as (server, port):
        leave_after(port, b"POST /orders HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % port + fields, arrived)
        in_flight = keyed(port, "key-1")
        assert (in_flight.status, in_flight.json["code"]) == (409, "in-progress")
        left.set()
        for _ in range(100):
            again = keyed(port, "key-1")
            if again.status != 409:
                break
            threading.Event().wait(0.02)
        assert (again.status, again.value("Idempotent-Replayed")) == (200, "true")
        assert len(server.heads) == 1


def test_a_content_that_breaks_off_does_not_look_whole():
    """When a client leaves in the middle of its chunks, the upstream never sees the last one."""
    first, over = threading.Event(), threading.Event()

    def script(line):
        line.head()
        line.chunk()
        first.set()
        line.take(1_000)
        over.set()

    with before(script) as (server, port):
        data = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"
        leave_after(port, data, first)
        assert over.wait(10)
        assert server.lines[0].received.endswith(b"\r\n\r\n2\r\nab\r\n")


# --- may the caller see it? -----------------------------------------------------------------------


def asking(status):
    """An upstream that is asked at `/may` and answers `status` there."""

    def script(line):
        while head := line.request()[0]:
            said = b"HTTP/1.1 %d Said\r\nContent-Length: 0\r\n\r\n" % status
            line.send(said if head.startswith(b"GET /may ") else OK)

    return script


@pytest.mark.parametrize(("said", "status"), [(204, 200), (200, 200), (302, 403), (401, 403), (403, 403), (500, 403)])
def test_replays_are_authorised(said, status):
    """Before a replay the upstream is asked with the client's own credentials, and only 2xx lets it through."""
    with before(asking(said), authorize="/may") as (server, port):
        assert keyed(port, "key-1", Authorization="Bearer t").status == 200
        assert keyed(port, "key-1", b"order", "/orders", Authorization="Bearer t").status == status
        assert [head.split(b" ")[:2] for head in server.heads] == [[b"POST", b"/orders"], [b"GET", b"/may"]]
        question = server.heads[1].lower()
        for field in (b"authorization: bearer t", b"x-account-id: me", b"x-forwarded-uri: /orders"):
            assert b"\r\n" + field in question
        assert b"\r\nx-forwarded-method: post" in question
        for name in (b"idempotency-key", b"content-length", b"content-type", b"transfer-encoding"):
            assert b"\r\n" + name + b":" not in question


def test_a_replay_that_cannot_be_authorised_is_refused():
    """Closed doors when the upstream does not answer the question."""
    with before(asking(204), authorize="/may", upstream_timeout_ms=200) as (server, port):
        assert keyed(port, "key-1").status == 200
        server.close()
        assert keyed(port, "key-1").json["code"] == "replay-forbidden"


# --- what is not carried --------------------------------------------------------------------------


def test_websockets_are_refused_for_what_they_are():
    """501 with a problem that says where to go."""
    with before(answering(OK)) as (server, port):
        answer = call(port, "GET", "/", Connection="Upgrade", Upgrade="websocket", Sec_WebSocket_Key="x")
        assert (answer.status, answer.json["code"], answer.value("Connection")) == (501, "upgrade-unsupported", "close")
        assert server.lines == []
