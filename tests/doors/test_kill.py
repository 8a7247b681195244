"""`kill -9` at any moment never leads to a second execution: replay if it was recorded, else 409 outcome-unknown."""

from __future__ import annotations

import uuid
from contextlib import ExitStack

import pytest

from tests.doors.servers import connect, request_bytes, serving, until

LEASE = {"SHOP_LEASE": "400ms"}


@pytest.mark.parametrize("server", ["uvicorn", "waitress"])
@pytest.mark.parametrize(("moment", "effects", "retry"), [
    ("before-claim", 0, "runs"),
    ("after-claim", 0, "outcome-unknown"),
    ("before-effect", 0, "outcome-unknown"),
    ("after-effect", 1, "outcome-unknown"),
    ("before-record", 1, "outcome-unknown"),
    ("after-record", 1, "replays"),
    ("before-answer", 1, "replays"),
])  # fmt: skip
def test_the_process_dies(tmp_path, server, moment, effects, retry):
    """At each moment of a request in turn; then a new process on the same file, and the retry past the lease."""
    name = uuid.uuid4().hex
    with serving(server, tmp_path, **LEASE) as shop:
        shop.shut(f"armed-{moment}")
        lost = shop.ask(key=name, name=name, sized=True)
        assert (lost.status, lost.whole) == (0, False)
        assert shop.process.process.wait(10) == -9
        assert shop.ledger("effect", name) == effects
    with serving(server, tmp_path, **LEASE) as shop:
        answers = [
            shop.settled(key=name, name=name, sized=True),
            *(shop.ask(key=name, name=name, sized=True) for _ in range(2)),
        ]
        if retry == "outcome-unknown":
            assert [(answer.status, answer.code) for answer in answers] == [(409, retry)] * 3
        else:
            assert [answer.replayed for answer in answers] == [retry == "replays", True, True]
            assert {(answer.status, answer.body) for answer in answers} == {(201, f"order {name}".encode())}
        assert shop.ledger("effect", name) == (1 if retry == "runs" else effects)


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
