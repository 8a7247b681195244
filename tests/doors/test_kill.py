"""`kill -9` at any moment never leads to a second execution: replay if it was recorded, else 409 outcome-unknown."""

from __future__ import annotations

import uuid
from contextlib import ExitStack

import pytest

from tests.doors.servers import connect, request_bytes, serving, until

LEASE = {"SHOP_LEASE": "400ms"}


# The moments of a request in turn: how many effects there are when the process has died, and what a retry gets.
MOMENTS = {
    "before-claim": (0, "runs"),
    "after-claim": (0, "outcome-unknown"),
    "before-effect": (0, "outcome-unknown"),
    "after-effect": (1, "outcome-unknown"),
    "before-record": (1, "outcome-unknown"),
    "after-record": (1, "replays"),
    "before-answer": (1, "replays"),
}


@pytest.mark.parametrize("server", ["uvicorn", "waitress"])
def test_the_process_dies(tmp_path, server):
    """At each moment, in process after process on one file: the next one knows what became of the requests before."""
    names = {moment: uuid.uuid4().hex for moment in MOMENTS}
    for moment, name in names.items():
        with serving(server, tmp_path, **LEASE) as shop:
            shop.shut(f"armed-{moment}")
            lost = shop.ask(key=name, name=name, sized=True)
            assert (lost.status, lost.whole) == (0, False), moment
            assert shop.process.process.wait(10) == -9
            assert shop.ledger("effect", name) == MOMENTS[moment][0], moment
    with serving(server, tmp_path, **LEASE) as shop:
        for moment, (effects, retry) in MOMENTS.items():
            name = names[moment]
            answers = [shop.settled(key=name, name=name, sized=True) for _ in range(3)]
            if retry == "outcome-unknown":
                assert [(answer.status, answer.code) for answer in answers] == [(409, retry)] * 3, moment
            else:
                assert [answer.replayed for answer in answers] == [retry == "replays", True, True], moment
                assert {(answer.status, answer.body) for answer in answers} == {(201, f"order {name}".encode())}
            assert shop.ledger("effect", name) == (1 if retry == "runs" else effects), moment


def test_the_process_dies_under_many(tmp_path):
    """Twenty requests at different stages when it dies: none has a second effect, whatever its retries get."""
    names = [uuid.uuid4().hex for _ in range(20)]
    gates = ["effect", "1", "after", None]
    with serving("uvicorn", tmp_path, **LEASE) as shop, ExitStack() as clients:
        for number, name in enumerate(names):
            if gate := gates[number % 4]:
                shop.shut(f"{name}-{gate}")
            client = clients.enter_context(connect(shop.port))
            client.send(request_bytes(key=name, name=name, pieces=["one", "two"]))
        until(lambda: all(shop.ledger("effect", name) for name in names))
        shop.process.process.kill()
        shop.process.process.wait(10)
    for number, name in enumerate(names):
        if gate := gates[number % 4]:
            shop.open(f"{name}-{gate}")
    with serving("uvicorn", tmp_path, **LEASE) as shop:
        for name in names:
            retry = shop.settled(key=name, name=name, pieces=["one", "two"])
            assert (retry.body, retry.replayed) == (b"onetwo", True) or retry.code == "outcome-unknown"
            assert shop.ledger("effect", name) == 1
