"""`kill -9` between every two steps of a call with a journal: one effect, no intent lost, none under two keys."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from retrysafe.client.attempt import Certainty
from retrysafe.client.intent import intent
from retrysafe.client.journal import Journal
from retrysafe.faults import LoseResponse
from retrysafe.httpx import IdempotencyTransport, resume
from tests.client.clients import QUICK
from tests.client.network import PATIENCE_S
from tests.doors.servers import until

ROOT = Path(__file__).parents[2]
PARTS = 4  # of the points, so that none of them takes long
CLOSE = {"Connection": "close"}  # a connection through the proxy carries one request
HEADERS = {"X-Account-Id": "7", **CLOSE}


@pytest.fixture
def dying():
    """The process that forks those that die."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.client.dying"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment,
    ) as process:  # fmt: skip
        yield process
        assert process.stdin is not None
        process.stdin.close()
        process.wait(PATIENCE_S)


def run(dying, job) -> int:
    """Do a job; its exit status."""
    print(json.dumps(job), file=dying.stdin, flush=True)
    return int(dying.stdout.readline())


def client_of(journal) -> httpx2.Client:
    """A client of the process that comes after."""
    inner = httpx2.HTTPTransport(verify=False)
    transport = IdempotencyTransport("retrysafe", transport=inner, journal=journal, schedule=QUICK)
    return httpx2.Client(transport=transport, timeout=10)


@pytest.mark.parametrize("part", range(PARTS))
def test_every_point(shop, network, tmp_path, dying, part):
    """Die at each point in turn, with the first answer lost; then resume; then let the job run once more."""
    job: dict[str, Any] = {
        "journal": str(tmp_path / "0"),
        "name": "order-0",
        "content": "order-0",
        "report": str(tmp_path / "report"),
    }
    with network.faulty(shop.port, [LoseResponse()]) as proxy:
        url = f"http://127.0.0.1:{proxy.port}/orders"
        assert run(dying, {**job, "url": url}) == 0
    points = int((tmp_path / "report").read_text())
    assert points > 50
    endings = set()
    for point in range(part, points, PARTS):
        shop.reset()
        name = f"order at {point}"
        job |= {"journal": str(tmp_path / f"{point}.db"), "name": name, "content": name, "dies_at": point}
        with network.faulty(shop.port, [LoseResponse()]) as proxy:
            url = f"http://127.0.0.1:{proxy.port}/orders"
            assert run(dying, {**job, "url": url}) == -9
            endings.add(settled_after(shop, url, job))
    # Nothing sent; sent, and not settled; settled, and the process did not know.
    assert endings == {(0, 0), (0, 1), (1, 1), (1, 0)}


def settled_after(shop, url, job) -> tuple[int, int]:
    """What must hold after a death, whenever it was; the effects before and the operations that were resumed."""
    digest = hashlib.sha256(job["content"].encode()).hexdigest()
    before = len(shop.effects())
    seen = set(shop.keys())
    with Journal(job["journal"]) as journal, client_of(journal) as client:
        known = {entry.key for entry in journal.unsettled()}
        resumed = resume(journal, client, headers=CLOSE)
        assert [each.certainty for each in resumed] == [Certainty.SETTLED] * len(known)
        assert not journal.unsettled()
        if known:
            assert [effect[1] for effect in shop.effects()] == [digest]
        with intent(job["name"]):
            assert client.post(url, content=job["content"].encode(), headers=HEADERS).status_code == 201
    ((key, done),) = shop.effects()
    assert done == digest
    assert set(shop.keys()) == {key} == seen | known | {key}
    return before, len(resumed)


def test_who_is_at_work_is_left_alone(shop, tmp_path):
    """What another process has in flight is not sent again, until that process is dead."""
    gate = shop.place / "closed"
    gate.touch()
    job = {"journal": str(tmp_path / "j.db"), "name": "order", "content": "order", "report": str(tmp_path / "report"),
           "url": f"http://127.0.0.1:{shop.port}/orders"}  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    code = f"from tests.client.dying import call; call({job!r})"
    with (
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment) as worker,
        Journal(job["journal"]) as journal,
        client_of(journal) as client,
    ):
        until(shop.effects)
        assert resume(journal, client) == []
        assert len(journal.unsettled()) == 1
        worker.kill()
        worker.wait(PATIENCE_S)
        gate.unlink()
        (resumed,) = resume(journal, client)
    assert (resumed.response.status_code, resumed.certainty) == (201, Certainty.SETTLED)
    ((key, _),) = shop.effects()
    assert set(shop.keys()) == {key}
