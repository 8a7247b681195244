"""The faults of a network: values that JSON can hold, drawn from a seed, and made to happen by a proxy."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from retrysafe.errors import ConfigurationError
from retrysafe.faults import (
    BlackHole,
    Chance,
    ChaosProxy,
    CutRequest,
    CutResponse,
    Delay,
    DeliverTwice,
    Fault,
    Leave,
    LoseResponse,
    Nothing,
    Plan,
    Reset,
    Silence,
    Slow,
    parse,
)
from retrysafe.faults.fault import KINDS, from_json, to_json

PATIENCE_S = 10
REQUEST = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 10\r\n\r\n0123456789"
CHUNKED = b"POST / HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n0123\r\n0\r\nX: 1\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\n\r\n"
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
    Delay(5),
    BlackHole(),
    Silence(),
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
    """An origin, and a proxy with these faults in front of it, which lists what it met."""
    origin, met = Origin(), []
    server = await asyncio.start_server(origin.serve, "127.0.0.1", 0)
    origin.port = server.sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{origin.port}"
    async with ChaosProxy(url, faults, tell=lambda _, fault: met.append(fault)) as proxy:
        yield origin, proxy, met
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
        async with through(faults) as (origin, proxy, met):
            answer = await ask(proxy.port, request)
            async with asyncio.timeout(PATIENCE_S):
                await origin.gone.wait()
            return answer, origin.got, met

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
        async with through(Leave(10)) as (origin, proxy, _):
            origin.hold.clear()
            answer = await ask(proxy.port)
            assert not origin.gone.is_set()
            origin.hold.set()
            async with asyncio.timeout(PATIENCE_S):
                await origin.gone.wait()
            return answer, origin.got

    assert asyncio.run(scene()) == (b"", [REQUEST])


def test_who_left_gets_nothing():
    """However quick the answer is."""
    assert run(Leave(50))[:2] == (b"", [REQUEST])


def test_one_fault_for_each_connection():
    """A function says which connection meets which fault."""

    async def scene():
        async with through(lambda number: CutResponse(3) if number == 1 else Nothing()) as (_, proxy, _):
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


def test_delay():
    """The request arrives late, and whole."""
    assert run(Delay(20))[:2] == (ANSWER, [REQUEST])


@pytest.mark.parametrize(("fault", "arrives"), [(Silence(), [REQUEST]), (BlackHole(), [])])
def test_nothing_comes_and_nothing_ends(fault, arrives):
    """The client waits until it has had enough; the server has done its work, or never heard of it."""

    async def scene():
        async with through(fault) as (origin, proxy, met):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(REQUEST)
            if arrives:
                async with asyncio.timeout(PATIENCE_S):
                    await origin.gone.wait()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await reader.read(1)
            writer.close()
            return [got for got in origin.got if got], met

    assert asyncio.run(scene()) == (arrives, [fault])


def test_a_connection_carries_many_exchanges():
    """Each meets a fault of its own; the answers of a server that keeps connections open are told apart."""
    answers = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst",
        HINTS + b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: 1\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast",
    ]

    async def serve(reader, writer):
        for answer in answers:
            await reader.readexactly(len(REQUEST))
            writer.write(answer)
        await reader.read()
        writer.close()

    async def scene():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        faults: list[Fault] = [Nothing(), Slow(7, 1), Delay(1), CutResponse(41)]
        async with ChaosProxy(url, lambda number: faults[number]) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            got = []
            for answer in answers[:-1]:
                writer.write(REQUEST)
                got.append(await reader.readexactly(len(answer)))
            writer.write(REQUEST)
            got.append(await reader.read())
            writer.close()
        server.close()
        return got, dict(proxy.met)

    met = {"nothing": 1, "slow": 1, "delay": 1, "cut-response": 1}
    assert asyncio.run(scene()) == ([*answers[:-1], answers[-1][:41]], met)


def test_servers_take_turns():
    """With several servers, connections go to each in turn."""

    async def scene():
        async with through(Nothing()) as (first, _, _), through(Nothing()) as (second, _, _):
            async with ChaosProxy([f"http://127.0.0.1:{one.port}" for one in (first, second)], Nothing()) as proxy:
                for _ in range(4):
                    await ask(proxy.port)
            return len(first.got), len(second.got)

    assert asyncio.run(scene()) == (2, 2)


WORDS = [
    "lose-response@5%",
    "delay:200ms@10%",
    "slow:16,5ms@0.5%",
    "cut-response:64@1%",
    "cut-request@2%",
    "black-hole@1%",
]


def test_words():
    """What a user writes is what happens, and is written the same again."""
    chances = parse(WORDS)
    assert [str(chance) for chance in chances] == WORDS
    assert chances[2] == Chance("slow", 0.005, {"piece_bytes": 16, "pause_ms": 5})
    assert parse(["delay:2s"]) == (Chance("delay", 1.0, {"delay_ms": 2_000}),)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["flood@5%"], "there is no fault 'flood'; there are nothing, cut-request"),
        (["delay@5"], "'5' is no share: write a number up to 100 and a percent sign"),
        (["reset@0%"], "'0%' is no share"),
        (["delay:200"], "'200' is no duration: write 200ms or 2s"),
        (["cut-response:x"], "'x' is no number of bytes"),
        (["slow:16"], "slow takes piece_bytes, pause_ms, like slow:64,200ms; '16' was given"),
        (["reset:5"], "reset takes no argument, and '5' was given"),
        (["reset@60%", "delay@50%"], "110% together"),
    ],
)
def test_a_word_that_is_wrong(words, said):
    """The error names the word, and the part of it that is wrong."""
    with pytest.raises(ConfigurationError) as error:
        parse(words)
    assert said in str(error.value)


def test_a_plan_is_its_seed():
    """The same seed gives the same faults in any order, another seed gives others, and shares are kept."""
    numbers = range(1_000)
    chances = tuple(Chance(kind, 0.08) for kind in KINDS if kind != "nothing")
    plan = Plan(7, chances)
    forwards = [plan.fault(number) for number in numbers]
    assert forwards == [Plan(7, chances).fault(number) for number in reversed(numbers)][::-1]
    assert forwards != [Plan(8, chances).fault(number) for number in numbers]
    assert {type(fault) for fault in forwards} == set(KINDS.values())
    assert 150 < forwards.count(Nothing()) < 250
    assert Plan(7, parse(["delay:3ms"])).fault("anything") == Delay(3)
