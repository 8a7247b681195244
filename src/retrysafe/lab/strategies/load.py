"""The clients: each has orders to place, and tries each until it is told how it ended.

A client has a network of its own, a chaos proxy in front of the servers, to which its connections go in turn. Which
fault an attempt meets depends on the seed, the number of the order and that of the attempt.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field

from retrysafe.faults import Chance, ChaosProxy, Fault, Nothing, Plan, parse
from retrysafe.faults.http import Http
from retrysafe.faults.wire import Owed, Piece
from retrysafe.lab.judged import End, Operation
from retrysafe.lab.retrying import Patience, Told, retry
from retrysafe.lab.strategies.shop import Order

FAULTS: tuple[Chance, ...] = parse(
    (
        "silence@6%",  # with the next one, the one in ten that time out
        "black-hole@4%",
        "lose-response@3%",
        "cut-response@2%",
        "cut-request@2%",
        "reset@2%",
        "leave@1%",
        "deliver-twice@3%",
    )
)
REPEATED_SHARE = 0.01
_REPEATS_BEHIND = 50
_PATIENCE = Patience(attempts_max=40, pause_s=(0.005, 0.05), wait_s_max=1.0)
_LATER = frozenset({425, 429, 500, 502, 503, 504})
_ITEMS = ("tea", "coffee", "honey", "bread")
_ENDS = (OSError, EOFError, ValueError, StopAsyncIteration, asyncio.LimitOverrunError)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whole."""

    status: int
    retry_after: str
    body: bytes


class Caller:
    """A connection that is kept open, and made anew after it broke.

    Args:
        port: of the loopback.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._writer: asyncio.StreamWriter | None = None
        self._pieces: AsyncIterator[Piece] | None = None

    async def ask(self, request: bytes, timeout_s: float) -> Answer | None:
        """Send a request and read its answer; None if none came whole."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._ask(request)
        except (TimeoutError, *_ENDS):
            self.close()
            return None

    async def _ask(self, request: bytes) -> Answer:
        if self._writer is None or self._pieces is None:
            reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
            self._pieces = Http().answers(reader, deque[Owed]())
        if self._writer.transport.is_closing():
            raise ConnectionResetError
        self._writer.write(request)
        content, is_last = b"", False
        while not is_last:
            piece = await anext(self._pieces)
            content += piece.content
            is_last = piece.is_last
        return _answer(content)

    def close(self) -> None:
        """Let go of the connection."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._writer = self._pieces = None


def _answer(content: bytes) -> Answer:
    head, _, body = content.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    waits = [line[12:].strip().decode() for line in lines if line[:12].lower() == b"retry-after:"]
    return Answer(int(lines[0][9:12]), waits[0] if waits else "", body)


@dataclass(frozen=True, slots=True)
class Orders:
    """The orders of a run: a function of its seed.

    Attributes:
        seed: the same seed gives the same orders.
        name: begins their references.
    """

    seed: int
    name: str = "order"

    def order(self, number: int) -> Order:
        """An order. One in a hundred says what an earlier one said: the customer wants the same once more."""
        dice = random.Random(f"{self.seed}/order/{number}")  # noqa: S311 - can be replayed, no secrets
        like = number - _REPEATS_BEHIND if dice.random() < REPEATED_SHARE and number >= _REPEATS_BEHIND else number
        dice = random.Random(f"{self.seed}/content/{like}")  # noqa: S311 - as above
        return Order(
            f"{self.name}-{number:06}", f"{self.name}-customer-{like:06}", dice.choice(_ITEMS), dice.randrange(1, 5)
        )


def request_of(order: Order) -> bytes:
    """An attempt, byte by byte the same each time."""
    body = json.dumps(
        {
            "reference": order.reference,
            "customer": order.customer,
            "item": order.item,
            "quantity": order.quantity,
        }
    ).encode()
    key = uuid.uuid5(uuid.NAMESPACE_OID, order.reference)
    head = (
        "POST /orders HTTP/1.1\r\nHost: lab\r\nContent-Type: application/json\r\n"
        f'Idempotency-Key: "{key}"\r\nContent-Length: {len(body)}\r\n\r\n'
    )
    return head.encode() + body


@dataclass(slots=True)
class Client:
    """One client.

    Attributes:
        orders: of the run.
        plan: its faults.
        timeout_s: how long it waits for an answer.
        fault: that its next attempt meets.
        took_us: of first attempts that met no fault, from the request to the whole answer.
    """

    orders: Orders
    plan: Plan
    timeout_s: float
    fault: Fault = field(default_factory=Nothing)
    took_us: list[float] = field(default_factory=list)

    async def work(
        self, urls: Sequence[str], numbers: Iterator[int], begins: Callable[[int], None], ended: Callable[[], None]
    ) -> list[Operation]:
        """Take orders until none is left.

        Args:
            urls: of the servers.
            numbers: of the orders.
            begins: called with each number.
            ended: called when an order is over.
        """
        done = []
        async with ChaosProxy(urls, lambda _: self.fault) as proxy:
            caller = Caller(proxy.port)
            try:
                for number in numbers:
                    begins(number)
                    done.append(await self._operate(number, caller))
                    ended()
            finally:
                caller.close()
        return done

    async def _operate(self, number: int, caller: Caller) -> Operation:
        order = self.orders.order(number)
        request = request_of(order)
        is_first = True

        async def ask(fault: Fault) -> Told:
            nonlocal is_first
            self.fault = fault
            began_s = time.perf_counter()
            answer = await caller.ask(request, self.timeout_s)
            if is_first and answer is not None and isinstance(fault, Nothing):
                self.took_us.append((time.perf_counter() - began_s) * 1e6)
            is_first = False
            return Told(_end(answer), answer and answer.body, answer.retry_after if answer else "")

        return await retry(order.reference, number, self.plan, _PATIENCE, ask)


def _end(answer: Answer | None) -> End:
    """What a client knows after this answer; OPEN if it has to ask again."""
    if answer is not None and answer.status == 409 and b"outcome-unknown" in answer.body:
        return End.UNKNOWN
    if answer is None or answer.status in _LATER or (answer.status == 409 and answer.retry_after):
        return End.OPEN
    return End.DONE if answer.status == 201 else End.REFUSED


async def calm(ports: Sequence[int], orders: Sequence[Order], timeout_s: float) -> list[list[float]]:
    """One client, no faults: how long each order took at each server, in microseconds.

    The servers take turns, so that whatever else the machine does falls upon all of them alike. Orders that were not
    taken are left out.

    Args:
        ports: of the servers.
        orders: that each of them gets.
        timeout_s: how long the client waits for an answer.
    """
    callers = [Caller(port) for port in ports]
    took_us: list[list[float]] = [[] for _ in ports]
    for order in orders:
        for place, caller in enumerate(callers):
            began_s = time.perf_counter()
            answer = await caller.ask(request_of(order), timeout_s)
            if answer is not None and answer.status == 201:
                took_us[place].append((time.perf_counter() - began_s) * 1e6)
    for caller in callers:
        caller.close()
    return took_us
