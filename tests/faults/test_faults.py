"""The faults of a network: values that JSON can hold, drawn from a seed, and made to happen by a proxy."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from retrysafe.faults import (
    ChaosProxy,
    CutRequest,
    CutResponse,
    DeliverTwice,
    Leave,
    LoseResponse,
    Nothing,
    Plan,
    Reset,
    Slow,
)
from retrysafe.faults.fault import KINDS, from_json, to_json

PATIENCE_S = 10
REQUEST = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 10\r\n\r\n0123456789"
CHUNKED = b"POST / HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n0123\r\n0\r\nX: 1\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
FAULTS = [
    Nothing(),
    CutRequest(7),
    LoseResponse(),
    CutResponse(9),
    Leave(20),
    Reset(),
    DeliverTwice(),
    Slow(4, 1),
]


class Origin:
    """A server that notes what it got of each request, and answers when it has the whole."""

    def __init__(self):
        self.got: list[bytes] = []
        self.gone = asyncio.Event()
        self.hold = asyncio.Event()
        self.hold.set()
        self.port = 0

    async def serve(self, reader, writer):
        """One connection."""
        got = b""
        while not got.endswith((b"0123456789", b"X: 1\r\n\r\n")) and (piece := await reader.read(65_536)):
            got += piece
        self.got.append(got)
        try:
            if got.endswith((b"0123456789", b"X: 1\r\n\r\n")):
                await self.hold.wait()
                writer.write(ANSWER)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            self.gone.set()
            writer.close()


@asynccontextmanager
async def through(faults):
    """An origin, and a proxy with these faults in front of it."""
    origin = Origin()
    server = await asyncio.start_server(origin.serve, "127.0.0.1", 0)
    origin.port = server.sockets[0].getsockname()[1]
    async with ChaosProxy(f"http://127.0.0.1:{origin.port}", faults) as proxy:
        yield origin, proxy
    server.close()


async def ask(port, request=REQUEST):
    """Everything that comes back; None if the connection was reset."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(PATIENCE_S):
            return await reader.read()
    except ConnectionError:
        return None
    finally:
        writer.close()


def run(faults, request=REQUEST):
    """What the client got, and what the server got."""

    async def scene():
        async with through(faults) as (origin, proxy):
            answer = await ask(proxy.port, request)
            async with asyncio.timeout(PATIENCE_S):
                await origin.gone.wait()
            return answer, origin.got, proxy.met

    return asyncio.run(scene())


def test_nothing():
    """Without a fault, both get everything; also of content in chunks, with trailers."""
    assert run(Nothing()) == (ANSWER, [REQUEST], [Nothing()])
    assert run(Nothing(), CHUNKED)[:2] == (ANSWER, [CHUNKED])


def test_cut_request():
    """The server gets the first bytes, the client nothing."""
    assert run(CutRequest(60))[:2] == (b"", [REQUEST[:60]])


def test_lose_response():
    """The server has done its work, and the client does not know."""
    assert run(LoseResponse())[:2] == (b"", [REQUEST])


def test_cut_response():
    """The client gets the first bytes."""
    assert run(CutResponse(20))[:2] == (ANSWER[:20], [REQUEST])


def test_reset():
    """Both sides see a reset behind the whole request."""
    answer, got, _ = run(Reset())
    assert not answer
    assert got in ([REQUEST], [b""])


def test_deliver_twice():
    """The server gets the request twice, the client one answer."""
    assert run(DeliverTwice())[:2] == (ANSWER, [REQUEST, REQUEST])


def test_slow():
    """The answer trickles, and is whole."""
    assert run(Slow(3, 1))[:2] == (ANSWER, [REQUEST])


def test_leave():
    """The client goes away while the server is at work; the server has the whole request."""

    async def scene():
        async with through(Leave(10)) as (origin, proxy):
            origin.hold.clear()
            answer = await ask(proxy.port)
            assert not origin.gone.is_set()
            origin.hold.set()
            async with asyncio.timeout(PATIENCE_S):
                await origin.gone.wait()
            return answer, origin.got

    assert asyncio.run(scene()) == (b"", [REQUEST])


def test_one_fault_for_each_connection():
    """A function says which connection meets which fault."""

    async def scene():
        async with through(lambda number: CutResponse(3) if number == 1 else Nothing()) as (_, proxy):
            return [await ask(proxy.port) for _ in range(3)]

    assert asyncio.run(scene()) == [ANSWER, ANSWER[:3], ANSWER]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_survives_json(fault):
    """Written and read, it is the same."""
    assert from_json(json.loads(json.dumps(to_json(fault)))) == fault


def test_every_kind_is_here():
    """No kind of fault goes untested."""
    assert {type(fault) for fault in FAULTS} == set(KINDS.values())


@pytest.mark.parametrize("document", [{}, {"fault": "flood"}, {"fault": "leave"}, {"fault": "reset", "at": 1}])
def test_what_is_no_fault_is_refused(document):
    """A document that describes none is an error."""
    with pytest.raises(ValueError, match="no fault"):
        from_json(document)


def test_a_plan_is_its_seed():
    """The same seed gives the same faults in any order, another seed gives others, and all kinds come up."""
    numbers = range(400)
    plan = Plan(seed=7, one_in=1)
    forwards = [plan.fault(number) for number in numbers]
    assert forwards == [Plan(seed=7, one_in=1).fault(number) for number in reversed(numbers)][::-1]
    assert forwards != [Plan(seed=8, one_in=1).fault(number) for number in numbers]
    assert {type(fault) for fault in forwards} == set(KINDS.values()) - {Nothing}
    spared = sum(Plan(seed=7, one_in=4).fault(number) == Nothing() for number in numbers)
    assert 240 < spared < 360
