"""A client that loses answers. It keeps one key per order and insists until it is told.

It speaks HTTP over bare streams, because a library would not cut a connection exactly where the
plan says: in the middle of the request, behind its last byte, or after the first byte of the answer.
Every attempt has its own connection, so that a cut hurts no one else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from retrysafe.demo.plan import Fault, Order
from retrysafe.demo.shop import ANSWER_DELAY_MS

_CONCURRENT_MAX = 16
_ATTEMPTS_MAX = 8
_HASTY_MS = ANSWER_DELAY_MS // 3  # the patience that times out: the shop cannot have answered by then
_PATIENCE_MS = 5_000
_WAIT_MS_MAX = 2_000
_DEADLINE_MS = 60_000  # only a shop that hangs takes so long
_DEADLINE_MS_PER_ORDER = 10


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client looks at in an answer.

    Attributes:
        status: the status code.
        replayed: it repeats an earlier answer.
        retry_after_ms: when to come back, if the server said so.
    """

    status: int
    replayed: bool = False
    retry_after_ms: int | None = None

    @property
    def final(self) -> bool:
        """Whether trying again would change nothing (contract R91)."""
        later = self.status in {429, 502, 503, 504} or (self.status == 409 and self.retry_after_ms is not None)
        return self.replayed or not later


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request: whether its last byte went out, and what the client saw of the answer."""

    reference: str
    sent_whole: bool
    answer: Answer | None


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the client saw of its own requests.

    Attributes:
        sent_whole: requests whose last byte went out.
        replayed: answers that were marked as replays.
        told_to_wait: answers that said that the first attempt is still at work.
        unanswered: orders for which the client was never told how they ended.
    """

    sent_whole: int
    replayed: int
    told_to_wait: int
    unanswered: int


async def send_all(url: str, plan: Sequence[Order], on_settled: Callable[[], None] = lambda: None) -> Traffic:
    """Send every order of the plan, through its faults, until each has a final answer.

    Args:
        url: where the shop is, or the gateway before it.
        plan: what to send.
        on_settled: called once for each order that is over.

    Returns:
        What the client saw. Orders that are not settled by the deadline count as unanswered.
    """
    client = _Client(url)
    orders = [asyncio.create_task(client.insist(order)) for order in plan]
    for order in orders:
        order.add_done_callback(lambda _: on_settled())
    _, late = await asyncio.wait(orders, timeout=(_DEADLINE_MS + _DEADLINE_MS_PER_ORDER * len(plan)) / 1_000)
    for order in late:
        order.cancel()
    await asyncio.gather(*orders, return_exceptions=True)
    return summary(client.attempts, plan)


def summary(attempts: Iterable[Attempt], plan: Sequence[Order]) -> Traffic:
    """Add up the attempts of a plan."""
    attempts = tuple(attempts)
    told = {attempt.reference for attempt in attempts if attempt.answer and attempt.answer.final}
    answers = [attempt.answer for attempt in attempts if attempt.answer]
    return Traffic(
        sent_whole=sum(attempt.sent_whole for attempt in attempts),
        replayed=sum(answer.replayed for answer in answers),
        told_to_wait=sum(answer.status == 409 and not answer.final for answer in answers),
        unanswered=sum(order.reference not in told for order in plan),
    )


class _Client:
    """All customers of one shop; at most `_CONCURRENT_MAX` of them are at the counter."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._host, self._port = address.hostname or "", address.port or 80
        self._counter = asyncio.Semaphore(_CONCURRENT_MAX)
        self.attempts: list[Attempt] = []

    async def insist(self, order: Order) -> None:
        """Try until there is a final answer. Who is told to wait does so away from the counter."""
        wait_ms = 0
        for number in range(_ATTEMPTS_MAX):
            await asyncio.sleep(wait_ms / 1_000)
            async with self._counter:
                answer = await self._try(order, order.fault(number))
            if answer and answer.final:
                return
            told_ms = answer.retry_after_ms if answer else None
            wait_ms = order.pause_ms if told_ms is None else min(told_ms, _WAIT_MS_MAX)

    async def _try(self, order: Order, fault: Fault) -> Answer | None:
        """One attempt: one request, or two at once. Of two answers the final one counts."""
        clicks = 2 if fault is Fault.DOUBLE_CLICK else 1
        answers = await asyncio.gather(*(self._request(order, fault) for _ in range(clicks)))
        return next((answer for answer in answers if answer and answer.final), answers[0])

    async def _request(self, order: Order, fault: Fault) -> Answer | None:
        sent_whole, answer = False, None
        try:
            reader, writer = await asyncio.open_connection(self._host, self._port)
            try:
                await _send(writer, self._head(order), order.body, fault)
                sent_whole = fault is not Fault.CUT_BODY
                answer = await _receive(reader, fault)
            finally:
                writer.transport.abort()
        except OSError:
            answer = None  # a connection that breaks by itself tells the client as little as one that is cut
        finally:
            self.attempts.append(Attempt(order.reference, sent_whole, answer))
        return answer

    def _head(self, order: Order) -> bytes:
        return (
            "POST /orders HTTP/1.1\r\n"
            f"Host: {self._host}:{self._port}\r\n"
            "Content-Type: application/json\r\n"
            f"Content-Length: {len(order.body)}\r\n"
            f"X-Account-Id: {order.account}\r\n"
            f'Idempotency-Key: "{order.key}"\r\n'
            "Connection: close\r\n"
            "\r\n"
        ).encode("ascii")


async def _send(writer: asyncio.StreamWriter, head: bytes, body: bytes, fault: Fault) -> None:
    writer.write(head + (body[: len(body) // 2] if fault is Fault.CUT_BODY else body))
    await writer.drain()


async def _receive(reader: asyncio.StreamReader, fault: Fault) -> Answer | None:
    """What the client sees of the answer; None if nothing that it could use.

    Raises:
        TimeoutError: the client's patience ended first.
    """
    if fault in {Fault.CUT_BODY, Fault.CUT_SENT}:
        return None
    async with asyncio.timeout((_HASTY_MS if fault is Fault.TIMEOUT else _PATIENCE_MS) / 1_000):
        if fault is Fault.CUT_ANSWER:
            await reader.read(1)
            return None
        return parse_answer(await reader.read())


def parse_answer(received: bytes) -> Answer | None:
    """The answer in the bytes of a connection that has ended; None if it is not all there."""
    head, end, body = received.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    status = lines[0].split(" ")[1:2]
    if not end or not status or not status[0].isdigit():
        return None
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    if len(body) < int(fields.get("content-length", "0")):
        return None
    retry_after = fields.get("retry-after", "")
    return Answer(
        status=int(status[0]),
        replayed=fields.get("idempotent-replayed") == "true",
        retry_after_ms=int(retry_after) * 1_000 if retry_after.isdigit() else None,
    )
