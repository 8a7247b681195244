"""What arrives at the upstream and what comes back: bytes, order, repetition, and nothing else."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading

import aiohttp
import pytest

from retrysafe.gateway.session import UpstreamUnreachable, _Connector
from tests.gateway.origin import OK, answering, origin
from tests.gateway.serving import before, call, converse, keyed

TARGETS = [
    b"/a/../b/./c", b"/%2e%2e/%2F%00", b"//other.example/p", b"/a?", b"/a?b?c", b"/?x=%zz&y=%2B+", b"/a;b=c,d@e:f",
    b'/a|b\\c^d`e{f}"<>[g]', b"/%E2%82%AC", b"/a%20b?q=%20", b"/?../..//",
]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
def test_targets_arrive_byte_for_byte(target):
    """Dot segments, escapes and an empty query are the upstream's business."""
    with before(answering(OK)) as (server, port):
        converse(port, b"GET " + target + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert server.heads[0].startswith(b"GET " + target + b" HTTP/1.1\r\n")


def test_nothing_is_added_but_where_it_came_from():
    """No user agent, no accepted codings, no content type of ours; the fields arrive in order, byte for byte."""
    with before(answering(OK)) as (server, port):
        fields = b"Host: api.example\r\nX-B: 1\r\nX-A: \xc3\xa9 x\r\nX-B: 2\r\nContent-Length: 2\r\n"
        converse(port, b"POST /p HTTP/1.1\r\n" + fields + b"\r\nab")
        lines = server.heads[0].strip().split(b"\r\n")
    told = (b"x-forwarded-", b"forwarded:", b"via:")
    assert [line.lower() for line in lines if not line.startswith(told)] == [
        b"post /p http/1.1",
        b"host: api.example",
        b"x-b: 1",
        b"x-a: \xc3\xa9 x",
        b"x-b: 2",
        b"content-length: 2",
    ]


def test_answers_come_back_line_for_line():
    """Repeated fields stay repeated, in order; bytes that are no text pass; there is one Date."""
    fields = [b"Set-Cookie: a=1", b"Link: <a>; rel=x", b"Set-Cookie: b=2", b"Link: <b>; rel=y", b"X-Latin: caf\xe9"]
    date = b"Date: Mon, 01 Jan 2024 00:00:00 GMT"
    answer = b"\r\n".join([b"HTTP/1.1 201 Created", *fields, date, b"Content-Length: 2", b"", b"ok"])
    with before(answering(answer)) as (_, port):
        got, _ = converse(port, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    lines = got.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 201 Created"
    known = [line.lower() for line in fields]
    assert [line.lower() for line in lines if line.lower() in known] == known
    assert [line for line in lines if line.lower().startswith(b"date:")] == [b"date" + date[4:]]
    assert b"via: 1.1 retrysafe" in lines


def test_an_answer_without_a_date_gets_one():
    """A proxy adds what an origin forgot; replays and refusals have one too."""
    with before(answering(OK)) as (_, port):
        for answer in (call(port), keyed(port, "key-1"), keyed(port, "key-1"), call(port, "CONNECT")):
            assert len(answer.all("Date")) == 1


def test_coded_contents_pass_as_they_are():
    """What is compressed stays compressed, and says so."""
    content = gzip.compress(b"hello" * 100)
    answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(content) + content
    with before(answering(answer)) as (_, port):
        got = call(port)
        assert (got.body, got.value("Content-Encoding")) == (content, "gzip")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 1234\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nETag: x\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 204 No\r\nETag: x\r\n\r\n",
    ],
)
def test_answers_without_content(answer):
    """No content, no length, and the connection to the client goes on."""
    with before(answering(answer)) as (_, port):
        got, _ = converse(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
    assert got.count(b"HTTP/1.1 ") == 2
    assert got.count(b"etag: x\r\n") == 2
    assert b"content-length" not in got


def test_head_keeps_its_length():
    """The length that a GET would have."""
    with before(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n")) as (_, port):
        got = call(port, "HEAD")
        assert (got.status, got.value("Content-Length"), got.body) == (200, "1234", b"")


def test_long_fields_of_an_answer_pass():
    """A policy of 20 KB in a field does not make an outcome unknown."""
    answer = b"HTTP/1.1 200 OK\r\nX-Policy: %s\r\nContent-Length: 2\r\n\r\nok" % (b"x" * 20_000)
    with before(answering(answer)) as (_, port):
        assert len(keyed(port, "key-1").value("X-Policy") or "") == 20_000


def test_an_answer_that_ends_with_its_connection_passes():
    """HTTP/1.0 upstreams end their content by closing."""

    def script(line):
        line.request()
        line.send(b"HTTP/1.0 200 OK\r\n\r\nhello")

    with before(script) as (_, port):
        assert keyed(port, "key-1").body == b"hello"
        assert keyed(port, "key-1").value("Idempotent-Replayed") == "true"


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("key", ["key-1", None])
def test_contents_arrive_whole(size, chunked, key):
    """Small and large, with a length or in chunks, protected or not."""
    seen = []

    def script(line):
        while (request := line.request())[0]:
            seen.append(request[1])
            line.send(OK)

    content = bytes(range(256)) * (size // 256 + 1)
    content = content[:size]
    body = iter([content[at : at + 50_000] for at in range(0, size, 50_000)]) if chunked else content
    fields = {"Idempotency_Key": key, "X_Account_Id": "me"} if key else {}
    with before(script) as (_, port):
        assert call(port, "POST", "/", body, Content_Type="application/octet-stream", **fields).status == 200
    assert seen == [content]


def test_redirects_and_cookies_are_the_clients():
    """A redirect is an answer, and a cookie is nobody's but the client's."""
    answer = b"HTTP/1.1 302 Found\r\nLocation: http://other.example/\r\nSet-Cookie: a=1\r\nContent-Length: 0\r\n\r\n"
    with before(answering(answer)) as (server, port):
        assert [call(port).status, call(port).status] == [302, 302]
        assert not any(b"cookie" in head.lower() for head in server.heads)


def refusing():
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_proxies_of_the_environment_are_not_used(monkeypatch):
    """The environment of a gateway does not decide what it reaches."""
    monkeypatch.setenv("HTTP_PROXY", refusing())
    monkeypatch.setenv("http_proxy", refusing())
    with before(answering(OK)) as (_, port):
        assert call(port).status == 200


def test_host_is_preserved_or_the_upstreams():
    """The operator decides whose name the upstream sees."""
    for setting, expected in (("preserve", "api.example"), ("upstream", None)):
        with before(answering(OK), host=setting) as (server, port):
            call(port, Host="api.example")
            assert f"\r\nhost: {expected or server.url[7:]}\r\n".encode() in server.heads[0].lower()


def test_connections_are_kept_for_a_short_time_only():
    """Two requests in a row share one; after the idle time a new one is made."""
    let_go = threading.Event()

    def script(line):
        answering(OK)(line)
        let_go.set()

    with before(script, upstream_keepalive_ms=200) as (server, port):
        call(port)
        call(port)
        assert len(server.lines) == 1
        assert let_go.wait(10)
        call(port)
        assert len(server.lines) == 2


@pytest.mark.parametrize("late", [False, True])
def test_bytes_that_nobody_asked_for_answer_nobody(late):
    """An upstream that says more than it was asked, at once or later, loses its connection; the next answer is true."""
    said = threading.Event()

    def script(line):
        target = line.request()[0].split(b" ")[1]
        answer = OK.replace(b"ok", target[1:])
        poison = OK.replace(b"ok", b"xx")
        line.send(answer if late else answer + poison)
        if late and target == b"/a1":
            assert not threading.Event().wait(0.1)
            line.send(poison)
            assert not threading.Event().wait(0.1)
        said.set()
        answering(OK.replace(b"ok", b"b1"))(line)

    with before(script) as (server, port):
        assert call(port, "GET", "/a1").body == b"a1"
        assert said.wait(10)
        assert keyed(port, "key-1", target="/b1").body == b"b1"
        assert len(server.lines) == 2


class _Patient(_Connector):
    """Gives a connection away only when the upstream has spoken on it."""

    async def _create_connection(self, req, traces, timeout):  # noqa: ASYNC109 - aiohttp's own signature
        line = await super()._create_connection(req, traces, timeout)
        for _ in range(1_000):
            if line.should_close:
                return line
            await asyncio.sleep(0.01)
        raise AssertionError("the upstream did not speak")


def test_the_search_for_a_good_connection_ends():
    """When a new connection speaks before it is asked, nothing is sent, and that is what is said."""

    def greeting(line):
        line.send(OK)
        line.request()

    async def ask(server):
        async with aiohttp.ClientSession(connector=_Patient()) as session:
            with pytest.raises(UpstreamUnreachable, match="speaks before it is asked"):
                await session.get(server.url)

    with origin(greeting) as server:
        asyncio.run(ask(server))
        assert len(server.lines) < 100
        assert not server.heads


def test_keeping_connections_can_be_switched_off():
    """Then each request says that it is the last."""
    with before(answering(OK), upstream_keepalive_ms=0) as (server, port):
        call(port)
        call(port)
        assert len(server.lines) == 2
        assert all(b"connection: close" in head.lower() for head in server.heads)
