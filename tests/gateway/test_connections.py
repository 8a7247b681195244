"""Connections to the upstream: which are used again, which never, and how long each may be silent."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
import threading
from contextlib import nullcontext, suppress
from typing import Any

import pytest
import trustme

from retrysafe.errors import IncompleteResponse
from retrysafe.gateway.app import _upstream
from retrysafe.gateway.session import FIELD_BYTES_MAX, FIELDS_MAX, UpstreamFailed, open_session
from retrysafe.protocol.policy import Policy
from tests.gateway.origin import OK, answering, origin
from tests.gateway.serving import before, call, configured, converse, gateway, keyed


def session():
    """A session as the gateway has one."""
    return open_session(tls=False, connect_timeout_s=5, keepalive_s=5)


async def exchange(opened, url):
    """One exchange, to its end."""
    async with opened.get(url) as answer:
        await answer.read()


async def carry(upstream, messages, sent=None):
    """One POST without a key through the application; what it sent."""
    sent = [] if sent is None else sent
    fields = [(b"host", b"a"), (b"transfer-encoding", b"chunked")]
    connection = {"type": "http", "method": "POST", "http_version": "1.1", "scheme": "http", "headers": fields}

    async def receive():
        return messages.pop(0) if messages else await asyncio.get_running_loop().create_future()

    async def send(message):
        sent.append(message)

    await upstream({**connection, "raw_path": b"/", "query_string": b""}, receive, send)
    return sent


# --- used again, or not ---------------------------------------------------------------------------


def test_a_connection_that_was_closed_while_idle_carries_nothing():
    """The upstream closed it between two requests: the second is sent on a new one, and is answered."""
    closed = threading.Event()

    def script(line):
        line.request()
        line.send(OK)
        line.socket.shutdown(socket.SHUT_RDWR)
        closed.set()

    with before(script, upstream_keepalive_ms=10_000) as (server, port):
        for number in range(5):
            assert keyed(port, f"key-{number}").status == 200
            assert closed.wait(10)
            closed.clear()
        assert [len(line.heads) for line in server.lines] == [1] * 5


def test_what_the_loop_has_not_seen_yet_counts_too():
    """A connection that was closed while the loop was busy is not written to: the system is asked."""
    closed = threading.Event()

    def script(line):
        line.request()
        line.send(OK)
        if len(server.lines) == 1:
            line.socket.shutdown(socket.SHUT_RDWR)
            closed.set()
        line.request()

    async def twice():
        async with session() as opened:
            await exchange(opened, server.url)
            closed.wait(10)  # holds up the loop, as other requests would
            await exchange(opened, server.url)

    with origin(script) as server:
        asyncio.run(twice())
        assert [len(line.heads) for line in server.lines] == [1, 1]


@pytest.mark.parametrize(
    ("answer", "connections"),
    [
        (OK, 1),
        (OK.replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n"), 1),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Trailer: a\r\n\r\n", 1),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 1),
        (b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" + OK, 1),
        (OK.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"), 1),
        (OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), 2),
        (OK.replace(b"HTTP/1.1", b"HTTP/1.0"), 2),
        (OK + b"\r\n" + OK[:4], 2),
    ],
)
def test_which_connections_are_used_again(answer, connections):
    """Those on which the answer ended, unless either side said otherwise or something was left over."""
    with before(answering(answer), upstream_keepalive_ms=10_000) as (server, port):
        first, second = call(port), call(port)
        assert (first.status, first.body) == (second.status, second.body)
        assert first.value("X-Trailer") is first.value("Link") is None
        assert len(server.lines) == connections


def test_an_answer_to_head_leaves_its_connection_as_it_was():
    """Its length is of a content that does not come; one that does come makes it no answer, and is nobody's."""
    length = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"

    def script(line):
        while head := line.request()[0]:
            answer = length if head.startswith(b"HEAD") else OK
            line.send(answer + b"ok" if head.startswith(b"HEAD /with-content") else answer)

    with before(script, upstream_keepalive_ms=10_000) as (server, port):
        assert [call(port, method).body for method in ("HEAD", "GET", "HEAD", "GET")] == [b"", b"ok", b"", b"ok"]
        assert len(server.lines) == 1
        assert call(port, "HEAD", "/with-content").status == 502
        assert [call(port).body for _ in range(2)] == [b"ok", b"ok"]
        assert len(server.lines) == 2


def test_a_connection_with_half_a_request_on_it_is_not_used_again():
    """An upstream that says no early, and keeps its connection, is not told the rest of that request as the next."""

    def script(line):
        head = line.head()
        line.send(OK)
        line.take(1_000_000 if b"chunked" in head else 0)

    with before(script, upstream_keepalive_ms=10_000) as (server, port):
        half = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
        answer, _ = converse(port, half)
        assert answer.endswith(b"ok")
        assert call(port).status == 200
        assert len(server.lines) == 2
        assert server.lines[0].received.count(b"HTTP/1.1\r\n") == 1


def test_an_empty_piece_is_not_the_last_chunk():
    """A chunk without content ends a content, and only its end does."""
    contents = []

    def script(line):
        while request := line.request():
            contents.append(request[1])
            line.send(OK)

    async def send_pieces():
        messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in (b"", b"a", b"", b"b", b"")]
        async with _upstream(configured(server.url)) as upstream:
            sent = await carry(upstream, [*messages, {"type": "http.request", "body": b""}])
        assert sent[0]["status"] == 200

    with origin(script) as server:
        asyncio.run(send_pieces())
        assert contents[0] == b"ab"


def test_no_connection_is_left_behind():
    """Whatever becomes of an exchange, its connection is kept for the next one or ended, and no longer counted."""

    def script(line):
        while head := line.request()[0]:
            if head.startswith(b"GET /reset"):
                line.reset()
                return
            if not head.startswith(b"GET /silent"):
                line.send(OK)

    async def all_kinds():
        opened = session()
        await exchange(opened, server.url)
        with pytest.raises(UpstreamFailed):
            await exchange(opened, f"{server.url}/reset")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await exchange(opened, f"{server.url}/silent")
        await exchange(opened, server.url)
        kept = [line for lines in opened.connector._conns.values() for line, _ in lines]
        assert (opened.connector._acquired, len(kept)) == (set(), 1)
        await opened.close()

    with origin(script) as server:
        asyncio.run(all_kinds())


def test_nothing_is_left_for_an_upstream_that_does_not_read():
    """When a request is given up, what was not sent yet is dropped with its connection, or it would wait for ever."""
    go_on = threading.Event()

    def script(line):
        line.head()
        assert go_on.wait(10)

    async def endless():
        while True:
            yield bytes(1 << 20)

    async def give_up():
        opened = session()
        asking = asyncio.get_running_loop().create_task(opened.post(server.url, data=endless()))
        for _ in range(1_000):
            transports = [line.transport for line in opened.connector._acquired if line.transport]
            if any(transport.get_write_buffer_size() for transport in transports):
                break
            await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.wait({asking})
        left = [transport.get_write_buffer_size() for transport in transports]
        go_on.set()
        await opened.close()
        return left

    with origin(script) as server:
        assert asyncio.run(give_up()) == [0]


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\n\r\nhello"])
def test_the_end_of_the_gateway_ends_every_connection(begun):
    """Who waits for an answer is told that none came, and half an answer is not passed off as whole."""
    arrived = threading.Event()

    def script(line):
        line.request()
        line.send(begun)
        arrived.set()
        line.request()

    async def cut_off():
        sent: list[dict[str, Any]] = []
        async with _upstream(configured(server.url)) as upstream:
            asking = asyncio.get_running_loop().create_task(carry(upstream, [{"type": "http.request"}], sent))
            assert await asyncio.to_thread(arrived.wait, 10)
            for _ in range(1_000):
                if not begun or b"hello" in [message.get("body") for message in sent]:
                    break
                await asyncio.sleep(0.01)
            await upstream.close()
            with pytest.raises(IncompleteResponse) if begun else nullcontext():
                await asking
            later = await carry(upstream, [{"type": "http.request"}])
            await upstream.close()
        return sent, later

    with origin(script) as server:
        sent, later = asyncio.run(cut_off())
        assert sent[0]["status"] == (200 if begun else 502)
        assert sent[-1].get("more_body", False) == bool(begun)
        assert b"upstream-unreachable" in later[-1]["body"]
        assert len(server.heads) == 1


# --- silence --------------------------------------------------------------------------------------


def test_an_answer_that_comes_slowly_is_not_silent():
    """Each piece begins the time anew, however long the answer takes as a whole."""

    def script(line):
        line.request()
        line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        for _ in range(5):
            assert not threading.Event().wait(0.2)
            line.send(b"x")

    with before(script, upstream_timeout_ms=600) as (_, port):
        assert call(port).body == b"xxxxx"


def test_the_time_of_one_request_is_not_the_next_ones():
    """On a kept connection the second request has all of the time, whenever the first was sent."""

    def script(line):
        while line.request()[0]:
            assert not threading.Event().wait(0.4)
            line.send(OK)

    with before(script, upstream_timeout_ms=600, upstream_keepalive_ms=10_000) as (server, port):
        assert [call(port).status for _ in range(4)] == [200] * 4
        assert len(server.lines) == 1


def test_answers_before_the_answer_buy_no_time():
    """An upstream that says 102 again and again has not answered."""

    def script(line):
        line.request()
        while not threading.Event().wait(0.05):
            line.send(b"HTTP/1.1 102 Processing\r\n\r\n")

    with before(script, upstream_timeout_ms=300) as (_, port):
        assert keyed(port, "key-1").status == 504
        assert keyed(port, "key-1").json["code"] == "outcome-unknown"


def test_an_answer_that_began_may_not_be_silent_because_the_client_is():
    """An upstream that answers while it is still being sent to has its own time, whatever the client does."""

    def script(line):
        line.head()
        line.chunk()
        line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok")
        line.chunk()
        line.take(1)

    def chunk(text):
        return b"%x\r\n%s\r\n" % (len(text), text)

    with (
        before(script, upstream_timeout_ms=400) as (_, port),
        socket.create_connection(("127.0.0.1", port), timeout=5) as client,
    ):
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"one"))
        received = b""
        while not received.endswith(b"ok"):
            received += client.recv(1_000)
        client.sendall(chunk(b"two"))
        assert client.recv(1_000) == b""  # broken off, while this client has not ended its content


# --- answers that are none ------------------------------------------------------------------------


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"chunked, chunked", b"x"])
def test_a_coding_that_was_not_asked_for_is_no_answer(coding):
    """It would be taken off on the way, or not, and the client could not know."""
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: %s\r\n\r\n2\r\nok\r\n0\r\n\r\n" % coding
    with before(answering(answer)) as (_, port):
        assert keyed(port, "key-1").json["code"] == "outcome-unknown"


@pytest.mark.parametrize(
    ("piece", "times"), [(b"X: a\r\n", FIELDS_MAX + 2), (b"a" * (FIELD_BYTES_MAX // 8), 9)], ids=["fields", "bytes"]
)
def test_a_head_without_end_is_no_answer(piece, times):
    """The gateway does not collect it for ever."""

    def script(line):
        line.request()
        line.send(b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(times):
            line.send(piece)
        line.request()

    with before(script, upstream_timeout_ms=3_000) as (_, port):
        assert keyed(port, "key-1").status == 502
        assert keyed(port, "key-1").json["code"] == "outcome-unknown"


def test_an_answer_that_is_reset_has_not_ended():
    """Where the end of the connection is the end of the content, a reset is not that end."""
    arrived = threading.Event()

    def script(line):
        line.request()
        line.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
        assert arrived.wait(10)
        line.reset()

    with before(script) as (_, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/")
        response = connection.getresponse()
        assert response.read(5) == b"hello"
        arrived.set()
        with pytest.raises(http.client.IncompleteRead):
            response.read()
        connection.close()


# --- back-pressure --------------------------------------------------------------------------------

_MUCH = 64 << 20


def test_an_answer_waits_for_a_client_that_does_not_read():
    """What the client does not take, the gateway does not collect: the upstream is held up."""
    stuck = threading.Event()
    sent = []

    def script(line):
        line.request()
        line.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % _MUCH)
        line.socket.settimeout(0.5)
        try:
            while True:
                sent.append(line.socket.send(bytes(1 << 16)))
        except TimeoutError:
            stuck.set()

    with before(script) as (_, port), socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert stuck.wait(10)
        assert sum(sent) < _MUCH / 2


def test_a_content_waits_for_an_upstream_that_does_not_read():
    """And the other way round: the client is held up."""
    go_on = threading.Event()

    def script(line):
        line.head()
        assert go_on.wait(10)
        line.send(OK)

    with before(script) as (_, port), socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % _MUCH)
        client.settimeout(0.5)
        sent = 0
        with suppress(TimeoutError):
            while sent < _MUCH:
                sent += client.send(bytes(1 << 16))
        assert sent < _MUCH / 2
        go_on.set()


def test_an_overdue_answer_ends_though_its_client_does_not_read():
    """A client that takes nothing does not hold up the end of a handler that had its time; the outcome is unknown."""
    ended = threading.Event()

    def script(line):
        line.request()
        line.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % _MUCH)
        try:
            while True:
                line.send(bytes(1 << 16))
        finally:
            ended.set()

    with before(script, policy=Policy(lease="100ms", execution_max="300ms")) as (_, port):
        with socket.create_connection(("127.0.0.1", port)) as client:
            fields = b"X-Account-Id: me\r\nIdempotency-Key: key-1\r\nContent-Type: text/plain\r\n"
            client.sendall(b"POST /orders HTTP/1.1\r\nHost: a\r\n" + fields + b"Content-Length: 5\r\n\r\norder")
            assert ended.wait(10)
        assert keyed(port, "key-1").json["code"] == "outcome-unknown"


# --- what goes over the wire ----------------------------------------------------------------------


def test_a_request_of_http_1_0_gets_a_host():
    """One that names no host is sent on with the upstream's: HTTP/1.1 asks for one."""
    with before(answering(OK)) as (server, port):
        converse(port, b"GET / HTTP/1.0\r\n\r\n")
        assert server.heads[0].startswith(b"GET / HTTP/1.1\r\nHost: %s\r\n" % server.url[7:].encode())


@pytest.mark.parametrize(
    ("method", "fields", "content", "framing"),
    [
        ("POST", b"", b"", b"content-length: 0"),
        ("GET", b"", b"", None),
        ("GET", b"Content-Length: 0\r\n", b"", b"content-length: 0"),
        ("GET", b"Content-Length: 2\r\n", b"ab", b"content-length: 2"),
        ("DELETE", b"Content-Length: 002\r\n", b"ab", b"content-length: 2"),
        ("PUT", b"Transfer-Encoding: chunked\r\n", b"2\r\nab\r\n0\r\n\r\n", b"content-length: 2"),
    ],
)
def test_a_content_is_framed_anew(method, fields, content, framing):
    """The length that goes on is the one of what was read, and not the one that was said."""
    with before(answering(OK)) as (server, port):
        converse(port, method.encode() + b" / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n" + content)
        lines = server.heads[0].lower().split(b"\r\n")
        assert [line for line in lines if line.startswith((b"content-length", b"transfer"))] == (
            [framing] if framing else []
        )


def test_every_address_of_a_host_is_tried():
    """A name that stands for two families is reached by the one where somebody listens."""
    with origin(answering(OK)) as server, gateway(f"http://localhost:{server.port}") as port:
        assert keyed(port, "key-1").status == 200


# --- TLS ------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path, monkeypatch):
    """An authority that this process trusts, and nobody else."""
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    return made


def over_tls(certificate, script):
    """A script behind a handshake with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)

    def serve(line):
        with context.wrap_socket(line.socket, server_side=True) as line.socket:
            script(line)

    return serve


def test_an_upstream_over_tls(authority):
    """Its certificate is verified, its connection is kept, and its answers are whole."""
    script = over_tls(authority.issue_cert("127.0.0.1"), answering(OK))
    with origin(script) as server, gateway(server.url.replace("http:", "https:"), upstream_keepalive_ms=10_000) as port:
        assert [keyed(port, key).body for key in ("key-1", "key-2", "key-1")] == [b"ok"] * 3
        assert len(server.lines) == 1


@pytest.mark.parametrize("trusted", [True, False])
def test_a_certificate_that_does_not_hold_frees_the_key(trusted, authority):
    """Of another name, or of an authority that nobody trusts: nothing was sent."""
    certificate = authority.issue_cert("other.example") if trusted else trustme.CA().issue_cert("127.0.0.1")
    script = over_tls(certificate, answering(OK))
    with origin(script) as server, gateway(server.url.replace("http:", "https:")) as port:
        for _ in range(2):
            assert keyed(port, "key-1").json["code"] == "upstream-unreachable"
        assert not server.heads
