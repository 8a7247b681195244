from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrysafe.demo import client
from retrysafe.demo.client import Answer, Attempt, Traffic, parse_answer, send_all, summary
from retrysafe.demo.plan import Fault, Order, make_plan

CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}"
WAIT = b"HTTP/1.1 409 Conflict\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
ORDER = replace(make_plan(10, 1)[0], faults=(), pause_ms=1)


async def against(answers: list[bytes], order: Order) -> tuple[Traffic, list[bytes]]:
    """Send one order to a server that gives these answers in turn, and then none; what the client saw, what arrived."""
    arrived: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine = len(arrived)
        arrived.append(b"")
        while not arrived[mine].endswith(order.body) and (piece := await reader.read(4_096)):
            arrived[mine] += piece
        if arrived[mine].endswith(order.body):
            await asyncio.sleep(0.03)
            if answers:
                writer.write(answers.pop(0))
            else:
                await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        return await send_all(f"http://{host}:{port}", [order]), arrived


def test_a_plain_order_is_sent_once():
    """Nothing goes wrong, nothing is repeated."""
    traffic, arrived = asyncio.run(against([CREATED], ORDER))
    assert traffic == Traffic(sent_whole=1, replayed=0, told_to_wait=0, unanswered=0)
    assert len(arrived) == 1


@pytest.mark.parametrize("fault", [Fault.TIMEOUT, Fault.CUT_SENT, Fault.CUT_ANSWER])
def test_a_lost_answer_is_asked_for_again_with_the_same_bytes(fault):
    """The whole request arrived, its answer did not: the retry is the same request, key and all."""
    traffic, arrived = asyncio.run(against([CREATED, CREATED], replace(ORDER, faults=(fault,))))
    assert traffic == Traffic(sent_whole=2, replayed=0, told_to_wait=0, unanswered=0)
    assert arrived[0] == arrived[1]
    assert ORDER.key.encode() in arrived[0]


def test_a_request_that_is_cut_does_not_arrive_whole():
    """Half of the content arrives, and only the retry counts as sent."""
    traffic, arrived = asyncio.run(against([CREATED], replace(ORDER, faults=(Fault.CUT_BODY,))))
    assert traffic == Traffic(sent_whole=1, replayed=0, told_to_wait=0, unanswered=0)
    assert arrived[1].startswith(arrived[0])
    assert len(arrived[0]) == len(arrived[1]) - (len(ORDER.body) - len(ORDER.body) // 2)


@pytest.mark.parametrize(("first", "told_to_wait"), [(CREATED, 0), (WAIT, 1)])
def test_a_double_click_is_two_requests_at_once(first, told_to_wait):
    """The same request goes out twice, and of two answers the final one counts."""
    traffic, arrived = asyncio.run(against([first, CREATED], replace(ORDER, faults=(Fault.DOUBLE_CLICK,))))
    assert traffic == Traffic(sent_whole=2, replayed=0, told_to_wait=told_to_wait, unanswered=0)
    assert arrived[0] == arrived[1]


def test_who_is_told_to_wait_comes_back_with_the_same_key():
    """409 with Retry-After is no end."""
    traffic, arrived = asyncio.run(against([WAIT, CREATED], ORDER))
    assert traffic == Traffic(sent_whole=2, replayed=0, told_to_wait=1, unanswered=0)
    assert arrived[0] == arrived[1]


def test_a_server_that_never_answers_leaves_orders_unanswered(monkeypatch):
    """The deadline ends it, and the client does not claim to know."""
    monkeypatch.setattr(client, "_DEADLINE_MS", 200)
    traffic, arrived = asyncio.run(against([], ORDER))
    assert len(arrived) == 1
    assert traffic == Traffic(sent_whole=1, replayed=0, told_to_wait=0, unanswered=1)


@pytest.mark.parametrize(
    ("answer", "final"),
    [
        (Answer(201), True),
        (Answer(422), True),
        (Answer(409), True),
        (Answer(409, retry_after_ms=1_000), False),
        (Answer(503), False),
        (Answer(503, replayed=True), True),
    ],
)
def test_which_answers_are_final(answer, final):
    """A conflict that names no time will not go away; a replayed failure neither."""
    assert answer.final is final


def test_an_order_is_answered_if_one_of_its_attempts_was():
    """Traffic counts attempts, and orders only where nobody told how they ended."""
    one, two = make_plan(10, 1)[:2]
    attempts = [
        Attempt(one.reference, sent_whole=True, answer=None),
        Attempt(one.reference, sent_whole=True, answer=Answer(201, replayed=True)),
        Attempt(two.reference, sent_whole=False, answer=None),
        Attempt(two.reference, sent_whole=True, answer=Answer(409, retry_after_ms=1_000)),
    ]
    assert summary(attempts, [one, two]) == Traffic(sent_whole=3, replayed=1, told_to_wait=1, unanswered=1)


@given(st.integers(0, 100))
def test_part_of_an_answer_is_no_answer(cut):
    """Wherever the connection ends before the last byte, the client knows nothing."""
    head = b"HTTP/1.1 201 Created\r\nIdempotent-Replayed: true\r\nContent-Length: 20\r\n\r\n"
    answer = head + b"x" * 20
    assert parse_answer(answer) == Answer(201, replayed=True)
    assert parse_answer(answer[: min(cut, len(answer) - 1)]) is None
