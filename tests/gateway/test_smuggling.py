"""Requests that two servers could read differently, byte by byte, through the real parser to a raw upstream.

Whatever the shape: it is refused and the connection closed, or the upstream sees one request for each
that the gateway answered, framed in one way.
"""

from __future__ import annotations

import re

import pytest

from tests.gateway.origin import OK, answering, origin
from tests.gateway.serving import converse, gateway

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKS = b"2\r\nab\r\n0\r\n\r\n"


def post(*fields, content=b"", version=b"1.1"):
    """A POST with these field lines."""
    return b"".join(
        [b"POST /p HTTP/", version, b"\r\nHost: a\r\n", *(field + b"\r\n" for field in fields), b"\r\n", content]
    )


def get(*fields, target=b"/p"):
    """A GET with these field lines."""
    return b"".join([b"GET ", target, b" HTTP/1.1\r\nHost: a\r\n", *(field + b"\r\n" for field in fields), b"\r\n"])


CHUNKED = b"Transfer-Encoding: chunked"
LENGTH = b"Content-Length: 2"

REFUSED = {
    "length and chunks": post(b"Content-Length: 5", CHUNKED, content=b"0\r\n\r\n" + SMUGGLED),
    "chunks and length": post(CHUNKED, b"Content-Length: 5", content=b"0\r\n\r\n" + SMUGGLED),
    "two lengths alike": post(LENGTH, LENGTH, content=b"ab"),
    "two lengths": post(LENGTH, b"Content-Length: 0", content=b"ab"),
    "list of lengths": post(b"Content-Length: 2, 2", content=b"ab"),
    "signed length": post(b"Content-Length: +2", content=b"ab"),
    "negative length": post(b"Content-Length: -2", content=b"ab"),
    "hexadecimal length": post(b"Content-Length: 0x2", content=b"ab"),
    "empty length": post(b"Content-Length:", content=b"ab"),
    "length in two words": post(b"Content-Length: 1 2", content=b"ab"),
    "length beyond numbers": post(b"Content-Length: " + b"9" * 23, content=b"ab"),
    "space before colon, length": post(b"Content-Length : 2", content=b"ab"),
    "space before colon, chunks": post(b"Transfer-Encoding : chunked", content=CHUNKS),
    "tab before colon": post(b"Transfer-Encoding\t: chunked", content=CHUNKS),
    "unknown coding": post(b"Transfer-Encoding: xchunked", content=CHUNKS),
    "identity": post(b"Transfer-Encoding: identity", content=b"ab"),
    "identity and length": post(b"Transfer-Encoding: identity", LENGTH, content=b"ab"),
    "gzip, chunked": post(b"Transfer-Encoding: gzip, chunked", content=CHUNKS),
    "chunked, gzip": post(b"Transfer-Encoding: chunked, gzip", content=CHUNKS),
    "chunked, identity": post(b"Transfer-Encoding: chunked, identity", content=CHUNKS),
    "chunked twice": post(CHUNKED, CHUNKED, content=CHUNKS),
    "chunked then identity": post(CHUNKED, b"Transfer-Encoding: identity", content=CHUNKS),
    "identity then chunked": post(b"Transfer-Encoding: identity", CHUNKED, content=CHUNKS),
    "vertical tab before chunked": post(b"Transfer-Encoding: \x0bchunked", content=CHUNKS),
    "quoted chunked": post(b'Transfer-Encoding: "chunked"', content=CHUNKS),
    "chunked with parameter": post(b"Transfer-Encoding: chunked;q=1", content=CHUNKS),
    "empty coding": post(b"Transfer-Encoding:", LENGTH, content=b"ab"),
    "comma before chunked": post(b"Transfer-Encoding: ,chunked", content=CHUNKS),
    "chunked on a folded line": post(b"Transfer-Encoding:\r\n chunked", content=CHUNKS),
    "chunks in 1.0": post(CHUNKED, content=CHUNKS, version=b"1.0"),
    "folded line": get(b"X: a\r\n b"),
    "fold before the first field": b"GET /p HTTP/1.1\r\n X: a\r\nHost: a\r\n\r\n",
    "bare line feeds": b"GET /p HTTP/1.1\nHost: a\n\n",
    "bare line feed in a field": get(b"X: a\nTransfer-Encoding: chunked"),
    "bare carriage return in a field": get(b"X: a\rTransfer-Encoding: chunked"),
    "bare carriage return ends the line": b"GET /p HTTP/1.1\rHost: a\r\n\r\n",
    "NUL in a value": get(b"X: a\0b"),
    "NUL in a name": get(b"X\0: a"),
    "control character": get(b"X: a\x01b"),
    "delete character": get(b"X: a\x7fb"),
    "value in Latin-1": get(b"X: caf\xe9"),
    "bracket in a name": get(b"X(y): a"),
    "name in Latin-1": get(b"X\xe9: a"),
    "no name": get(b": a"),
    "no colon": get(b"Xfoo"),
    "space in a name": get(b"X foo: a"),
    "no host": b"GET /p HTTP/1.1\r\n\r\n",
    "two hosts": get(b"Host: a"),
    "two hosts, not alike": get(b"Host: b"),
    "host with a path": b"GET /p HTTP/1.1\r\nHost: a/../b?x@y\r\n\r\n",
    "another's URL": get(target=b"http://other/p"),
    "another's URL with our name as user": get(target=b"http://a@other/p"),
    "URL without a path": get(target=b"http://other"),
    "ftp": get(target=b"ftp://a/p"),
    "authority": get(target=b"other:80"),
    "connect": b"CONNECT other:80 HTTP/1.1\r\nHost: other:80\r\n\r\n",
    "connect with a path": b"CONNECT /p HTTP/1.1\r\nHost: a\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "fragment": get(target=b"/p#f"),
    "space in the target": get(target=b"/a b"),
    "tab in the target": get(target=b"/a\tb"),
    "target in UTF-8": get(target=b"/\xc3\xa9"),
    "relative target": get(target=b"p"),
    "version 0.9": b"GET /p\r\n\r\n",
    "version 1.2": b"GET /p HTTP/1.2\r\nHost: a\r\n\r\n",
    "version 2.0": b"GET /p HTTP/2.0\r\nHost: a\r\n\r\n",
    "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "method in lower case": b"get /p HTTP/1.1\r\nHost: a\r\n\r\n",
    "tab after the method": b"GET\t/p HTTP/1.1\r\nHost: a\r\n\r\n",
    "fourth word": b"GET /p HTTP/1.1 x\r\nHost: a\r\n\r\n",
    "upgrade": post(b"Connection: upgrade", b"Upgrade: websocket", LENGTH, content=b"ab" + SMUGGLED),
    "upgrade to h2c": get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AA") + SMUGGLED,
    "chunk size with sign": post(CHUNKED, content=b"+2\r\nab\r\n0\r\n\r\n"),
    "chunk size in C": post(CHUNKED, content=b"0x2\r\nab\r\n0\r\n\r\n"),
    "negative chunk": post(CHUNKED, content=b"-2\r\nab\r\n0\r\n\r\n"),
    "chunk beyond numbers": post(CHUNKED, content=b"fffffffffffffffff\r\nab\r\n0\r\n\r\n"),
    "chunk size and space": post(CHUNKED, content=b"2 \r\nab\r\n0\r\n\r\n"),
    "chunks with line feeds": post(CHUNKED, content=b"2\nab\n0\n\n"),
    "chunk longer than it says": post(CHUNKED, content=b"2\r\nabXX0\r\n\r\n"),
    "line feed in an extension": post(CHUNKED, content=b"2;a\nb\r\nab\r\n0\r\n\r\n"),
    "length in the trailers": post(CHUNKED, content=b"2\r\nab\r\n0\r\nContent-Length: 9\r\n\r\n"),
    "coding in the trailers": post(CHUNKED, content=b"2\r\nab\r\n0\r\nTransfer-Encoding: x\r\n\r\n"),
    "trailer without a colon": post(CHUNKED, content=b"2\r\nab\r\n0\r\nbad\r\n\r\n"),
}

FORWARDED = {
    "length with spaces": (post(b"Content-Length: 2 \t", content=b"ab"), b"ab"),
    "CHUNKED": (post(b"Transfer-Encoding: CHUNKED", content=CHUNKS), b"ab"),
    "chunk extension": (post(CHUNKED, content=b"2;a=b\r\nab\r\n0\r\n\r\n"), b"ab"),
    "trailers": (post(CHUNKED, content=b"2\r\nab\r\n0\r\nX-T: 1\r\n\r\n"), b"ab"),
    "request in the content": (post(b"Content-Length: %d" % len(SMUGGLED), content=SMUGGLED), SMUGGLED),
    "content of a GET": (get(b"Content-Length: %d" % len(SMUGGLED)) + SMUGGLED, SMUGGLED),
    "more after close": (get(b"Connection: close") + SMUGGLED, b""),
    "our own URL": (get(target=b"http://a/p"), b""),
    "lines before": (b"\r\n\r\n" + get(), b""),
    "upgrade that nobody asks for": (get(b"Upgrade: websocket"), b""),
    "length under another spelling": (post(LENGTH, b"Content_Length: 7", content=b"ab"), b"ab"),
    "coding under another spelling": (post(LENGTH, b"Transfer_Encoding: chunked", content=b"ab"), b"ab"),
    "connection removes the length": (post(LENGTH, b"Connection: close, content-length", content=b"ab"), b"ab"),
}


@pytest.fixture(scope="module")
def upstream():
    """A raw upstream that answers everything."""
    with origin(answering(OK)) as server:
        yield server


@pytest.fixture(scope="module")
def port(upstream):
    """The gateway before it. A new connection for each request, so that each has its own record there."""
    with gateway(upstream.url, upstream_keepalive_ms=0) as listening:
        yield listening


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, port):
    """It is answered with one error, and the connection is closed."""
    answer, closed = converse(port, REFUSED[name].replace(b"/p ", b"/refused "))
    assert closed
    (status,) = re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", answer)
    assert status in (b"400", b"501", b"505")


@pytest.mark.parametrize("name", FORWARDED)
def test_forwarded_as_one(name, upstream, port):
    """It is one request on both sides, with one framing, and its content is what the client meant."""
    data, content = FORWARDED[name]
    target = b"/forwarded-%d" % list(FORWARDED).index(name)
    answer, _ = converse(port, data.replace(b"/p ", target + b" "))
    assert re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", answer) == [b"200"]
    (line,) = [line for line in upstream.lines if target + b" " in line.received]
    head, _, rest = line.received.partition(b"\r\n\r\n")
    names = [field.partition(b":")[0].lower() for field in head.split(b"\r\n")[1:]]
    framing = [field for field in names if field.replace(b"_", b"-") in (b"content-length", b"transfer-encoding")]
    assert len(framing) == (1 if content or head.startswith(b"POST") else 0)
    assert rest == content
    assert b"\r\nupgrade:" not in head


def test_pipelined_requests_stay_two(upstream, port):
    """Two requests in one write are two requests, two answers, two records."""
    answer, _ = converse(port, get(target=b"/one") + get(target=b"/two"))
    assert answer.count(b"HTTP/1.1 200 ") == 2
    assert [head.split(b" ")[1] for head in upstream.heads][-2:] == [b"/one", b"/two"]


def test_what_was_refused_never_arrived_whole(upstream, port):
    """Of all the shapes above, the upstream got at most the beginning of a content that then broke off."""
    for line in upstream.lines:
        if b" /refused " in line.received:
            head, _, rest = line.received.partition(b"\r\n\r\n")
            assert b"\r\ntransfer-encoding: chunked" in head.lower()
            assert not rest.endswith(b"0\r\n\r\n")
        assert b"GET /smuggled" not in line.received.partition(b"\r\n\r\n")[0]


def test_the_corpus_is_broad():
    """At least forty shapes."""
    assert len(REFUSED) + len(FORWARDED) >= 40
