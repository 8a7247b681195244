"""Duplicates that wait, over real sockets: one process, several on one file, and owners that are killed."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.doors.servers import SERVERS, connect, request_bytes, serving, until

WAIT, RERUN = "POST /wait/told", "POST /rerun/told"
LEASE = {"SHOP_LEASE": "1s"}


@pytest.mark.parametrize("server", SERVERS)
def test_who_leaves_takes_no_turn(server, tmp_path):
    """A client resets its connection while it waits: when the first attempt did nothing, nothing runs for it."""
    name = uuid.uuid4().hex
    with serving(server, tmp_path) as shop, connect(shop.port) as first:
        shop.shut(f"{name}-effect")
        request = request_bytes(WAIT, key=name, name=name, say="no_effect")
        first.send(request)
        shop.until("effect", name)
        sockets = _sockets(shop)
        leaver = connect(shop.port)
        with leaver as wire:
            wire.send(request)
            until(lambda: _sockets(shop) > sockets)
            assert wire.is_silent()
            wire.reset()
        until(lambda: _sockets(shop) == sockets)
        assert first.is_silent()  # the server has seen the reset; a moment for it to tell the application
        shop.open(f"{name}-effect")
        assert first.answer(WAIT).status == 201
        assert shop.ask(WAIT, key=name, name=name, say="no_effect").status == 201
        assert shop.ledger("effect", name) == 2


def _sockets(shop):
    """How many sockets the server's process and its children have open."""
    pids = [shop.process.process.pid]
    for task in Path(f"/proc/{pids[0]}/task").iterdir():
        pids += [int(pid) for pid in (task / "children").read_text().split()]
    links = [str(link.readlink()) for pid in pids for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    return sum(link.startswith("socket:") for link in links)


# --- several processes on one file ----------------------------------------------------------------


def _served(stack, place, count, **environment):
    with ThreadPoolExecutor(count) as pool:
        contexts = [serving("uvicorn", place, **environment) for _ in range(count)]
        return list(pool.map(stack.enter_context, contexts))


def _ask_all(shops, each, target, **wish):
    """The same request to every process, several times at once."""
    start = threading.Barrier(len(shops) * each)

    def ask(shop):
        start.wait()
        return shop.ask(target, **wish)

    with ThreadPoolExecutor(len(shops) * each) as pool:
        return list(pool.map(ask, shops * each))


def test_processes_wait_for_each_other(tmp_path):
    """Twenty at once over four processes: one runs, and none is told to come again."""
    with ExitStack() as stack:
        shops = _served(stack, tmp_path, 4)
        for _ in range(3):
            name = uuid.uuid4().hex
            answers = _ask_all(shops, 5, WAIT, key=name, name=name)
            assert {(answer.status, answer.body) for answer in answers} == {(201, f"order {name}".encode())}
            assert sorted(answer.replayed for answer in answers) == [False] + [True] * 19
            assert shops[0].ledger("effect", name) == 1


@pytest.mark.parametrize(("target", "effects"), [(WAIT, 1), (RERUN, 2)])
def test_an_owner_is_killed_while_others_wait(target, effects, tmp_path):
    """`kill -9` of the owner: those who wait in another process learn that nobody knows, or one of them takes over."""
    name = uuid.uuid4().hex
    with ExitStack() as stack:
        doomed, other = _served(stack, tmp_path, 2, **LEASE)
        doomed.shut(f"{name}-effect")
        lost = stack.enter_context(connect(doomed.port))
        request = request_bytes(target, key=name, name=name)
        lost.send(request)
        doomed.until("effect", name)
        wires = [stack.enter_context(connect(other.port)) for _ in range(5)]
        for wire in wires:
            wire.send(request)
        assert all(wire.is_silent() for wire in wires)
        doomed.process.process.kill()
        doomed.process.process.wait(10)
        other.open(f"{name}-effect")
        answers = [wire.answer(target) for wire in wires]
        if target == RERUN:
            assert {(answer.status, answer.body) for answer in answers} == {(201, f"order {name}".encode())}
            assert sorted(answer.replayed for answer in answers) == [False] + [True] * 4
        else:
            assert {answer.code for answer in answers} == {"outcome-unknown"}
        assert other.ledger("effect", name) == effects
