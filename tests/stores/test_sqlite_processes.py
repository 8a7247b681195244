"""Several processes on one SQLite file: racing, starting together, forked, killed, out of disk."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from retrysafe.errors import StoreUnusable
from retrysafe.model import State
from retrysafe.protocol.transitions import Read
from retrysafe.stores import sqlite
from retrysafe.stores.sqlite import SqliteStore
from tests.stores.workers import claiming, completing

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60


@pytest.fixture
def path(tmp_path):
    return tmp_path / "records.db"


@contextmanager
def working(*arguments):
    """A worker in a process of its own; see `tests.stores.workers`."""
    command = [sys.executable, "-W", "error", "-m", "tests.stores.workers", *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        try:
            yield worker
        finally:
            worker.kill()


def together(count, *arguments, rounds=1):
    """What so many workers say, in each round, that begin it at the same moment, once all are ready."""
    with ExitStack() as stack:
        workers = [stack.enter_context(working(*arguments)) for _ in range(count)]
        said = []
        for _ in range(rounds):
            for worker in workers:
                assert worker.stdout.readline() == "ready\n"
            for worker in workers:
                worker.stdin.write("go\n")
                worker.stdin.flush()
            said.append([worker.stdout.readline().split() for worker in workers])
        for worker in workers:
            worker.communicate(timeout=PATIENCE_S)
        assert [worker.returncode for worker in workers] == [0] * count
    return said


def record(store, claim):
    """The record that was claimed."""
    found = store.perform(Read(claim.record_id))
    assert found is not None
    return found.record


def intact(path):
    """SQLite finds nothing wrong with the file."""
    connection = sqlite3.connect(path)
    (verdict,) = connection.execute("PRAGMA integrity_check").fetchall()
    connection.close()
    return verdict == ("ok",)


def test_one_process_wins_each_record(path):
    """Four processes claim the same 300 records, all at once: each is won by one of them, exactly."""
    (said,) = together(4, "race", path, 300)
    assert sorted(int(number) for numbers in said for number in numbers) == list(range(300))
    assert intact(path)


def test_processes_may_start_together(path):
    """Eight processes find no file: one makes it, all agree on the secret. Ten times over."""
    said = together(8, "first", path, 10, rounds=10)
    assert [len({secret for (secret,) in secrets}) for secrets in said] == [1] * 10


def test_what_was_acknowledged_survives_a_kill(path):
    """A process that is killed in the middle of its work loses nothing that it was told is done."""
    acknowledged = set()
    for lines in (1, 50, 400):
        with working("stream", path) as worker:
            for _ in range(lines):
                acknowledged.add(worker.stdout.readline().strip())
            worker.send_signal(signal.SIGKILL)
            rest = worker.stdout.read()
            acknowledged.update(rest[: rest.rfind("\n") + 1].split())
    store = SqliteStore(path)
    store.open()
    for line in acknowledged:
        record_id = bytes.fromhex(line)
        found = store.perform(Read(record_id))
        assert found is not None
        assert found.record.state is State.COMPLETED
        assert found.record.response == record_id * 30
    assert len(acknowledged) >= 451
    store.close()
    assert intact(path)


def test_forgotten_close_neither_hangs_nor_loses(path):
    """An interpreter that ends without closing its store finishes what was submitted."""
    with working("leave", path, 1_000) as worker:
        worker.communicate(timeout=PATIENCE_S)
        assert worker.returncode == 0
    store = SqliteStore(path)
    assert all(store.perform(Read(number.to_bytes(32))) for number in range(1_000))
    store.close()


def test_full_disk_is_unavailable_and_then_available(path):
    """Where there is no room, the store is unavailable; once there is, it goes on. What it acknowledged is there."""
    with working("fill", path) as worker:
        said = [line.split() for line in worker.communicate(timeout=PATIENCE_S)[0].splitlines()]
        assert worker.returncode == 0
    outcomes = [outcome for outcome, _ in said]
    assert outcomes.count("unavailable") == 1
    assert outcomes[0] == outcomes[-1] == "completed"
    store = SqliteStore(path)
    for outcome, number in said:
        found = store.perform(Read(int(number).to_bytes(32)))
        if outcome == "completed":
            assert found is not None
            assert found.record.response == bytes(1 << 18)
    store.close()
    assert intact(path)


# --- forks --------------------------------------------------------------------------------------


def in_child(fork, work):
    """What `work` returns in a forked child, which then ends at once; a word, or the name of an exception."""
    heard, told = os.pipe()
    child = fork()
    if child == 0:
        try:
            word = work()
        except BaseException as error:  # noqa: BLE001 the child must not go on with the tests
            word = type(error).__name__
        os.write(told, word.encode())
        os._exit(0)
    os.close(told)
    ready, _, _ = select.select([heard], [], [], PATIENCE_S)
    word = os.read(heard, 100).decode() if ready else "nothing"
    os.close(heard)
    os.waitpid(child, 0)
    return word


def test_both_sides_of_a_fork_work(path):
    """A store that was open when the process forked works in the parent and in the child, on the same records."""
    store = SqliteStore(path)
    store.open()
    before, in_the_child, after = (claiming(bytes([number]) * 32) for number in range(3))
    store.perform(before)

    def work():
        assert store.perform(completing(before))
        store.perform(in_the_child)
        store.close()
        return "done"

    assert in_child(os.fork, work) == "done"
    store.perform(after)
    assert record(store, before).state is State.COMPLETED
    assert record(store, in_the_child).token == in_the_child.token
    store.close()
    assert intact(path)


def test_fork_does_not_forget_which_file_it_was(path):
    """The file goes while a fork has it closed: neither side makes another."""
    store = SqliteStore(path)
    store.open()

    def work():
        path.unlink()
        with pytest.raises(StoreUnusable, match="removed or replaced"):
            store.perform(Read(bytes(32)))
        return "refused"

    assert in_child(os.fork, work) == "refused"
    with pytest.raises(StoreUnusable, match="removed or replaced"):
        store.perform(Read(bytes(32)))
    assert not path.exists()
    store.close()


def test_parent_that_closes_takes_nothing_from_its_child(path):
    """The child goes on writing after its parent has closed the file, and all of it is there."""
    store = SqliteStore(path)
    store.open()
    go, gone = os.pipe()
    claims = [claiming(bytes([number]) * 32) for number in range(3)]

    def work():
        store.perform(claims[0])
        os.write(told, b"1")
        os.read(go, 1)
        store.perform(claims[1])
        store.close()
        return "done"

    heard, told = os.pipe()

    def fork():
        child = os.fork()
        if child:
            os.read(heard, 1)
            store.close()
            os.write(gone, b"1")
        return child

    assert in_child(fork, work) == "done"
    store.open()
    store.perform(claims[2])
    for claim in claims:
        assert record(store, claim).token == claim.token
    store.close()
    for end in (go, gone, heard, told):
        os.close(end)


def test_fork_in_the_middle_of_traffic(path):
    """While threads use the store, the process forks again and again: no thread and no child is disturbed."""
    worker = """
import os, secrets, sys, threading
from retrysafe.protocol.transitions import Read
from retrysafe.stores.sqlite import SqliteStore
from tests.stores.workers import claiming
store = SqliteStore(sys.argv[1])
store.open()
claims, stop = [], threading.Event()
def use():
    while not stop.is_set():
        claim = claiming(secrets.token_bytes(32))
        assert store.perform(claim).record.token == claim.token
        claims.append(claim)
threads = [threading.Thread(target=use) for _ in range(4)]
for thread in threads:
    thread.start()
for _ in range(20):
    child = os.fork()
    if child == 0:
        claim = claiming(secrets.token_bytes(32))
        os._exit(store.perform(claim).record.token != claim.token)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
for thread in threads:
    thread.join()
assert len(claims) > 20
assert all(store.perform(Read(claim.record_id)).record.token == claim.token for claim in claims)
"""
    done = subprocess.run(
        [sys.executable, "-c", worker, path], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    assert intact(path)


def test_no_store_is_made_while_a_process_forks(path):
    """A fork goes through all stores; one that came in between would end that before their files are closed."""
    making = threading.Thread(target=SqliteStore, args=(path,))
    sqlite._before_fork()
    try:
        making.start()
        making.join(0.1)
        assert making.is_alive()
    finally:
        sqlite._after_fork()
    making.join(PATIENCE_S)
    assert not making.is_alive()


def fork_untold():
    """Fork as a library in C does. A thread that asked for the interpreter in that moment would be waited for in the
    child, where it is not: so, meanwhile, none may ask.
    """
    asking_s = sys.getswitchinterval()
    sys.setswitchinterval(1_000)
    child = ctypes.PyDLL(None).fork()
    sys.setswitchinterval(asking_s)
    return child


def test_fork_behind_our_back_is_refused(path):
    """Something forks without telling Python: in the child, the store says so and touches nothing."""
    store = SqliteStore(path)
    store.open()
    claim = claiming(bytes(32))

    def work():
        store.perform(claim)
        return "went on"

    assert in_child(fork_untold, work) == StoreUnusable.__name__
    assert store.perform(Read(claim.record_id)) is None
    assert store.perform(claim).record.token == claim.token
    store.close()
