"""Trailers are no header fields; whether an application can tell is for its server to say."""

from __future__ import annotations

import uuid

import pytest

from tests.doors.servers import SERVERS, connect, serving

MERGES_TRAILERS = "uvicorn"


@pytest.mark.parametrize("server", SERVERS)
def test_who_takes_a_key_from_a_trailer(server, tmp_path):
    """Under uvicorn with httptools trailers are fields; under every other server a key there is none."""
    name = uuid.uuid4().hex
    content = b'{"name": "%s"}' % name.encode()
    request = (
        b"POST /required/told HTTP/1.1\r\nHost: shop\r\nX-Account: alice\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\nIdempotency-Key: %s\r\n\r\n"
    ) % (len(content), content, name.encode())
    with serving(server, tmp_path) as shop, connect(shop.process.port) as wire:
        wire.send(request)
        answer = wire.answer("POST /required/told")
        merged = server == MERGES_TRAILERS
        assert (answer.status == 400, shop.ledger("effect", name)) == (not merged, int(merged))
