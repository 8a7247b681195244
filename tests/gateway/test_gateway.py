"""The whole gateway as a process: crashes at every point that matters, orderly ends, and one effect each time."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial

import pytest

from tests import forked
from tests.gateway.processes import Gateway, Ledger, environment, in_thread, until
from tests.gateway.serving import call, keyed

LEASE_MS = 500
SHORT_LEASE = ("--policy", f"lease={LEASE_MS}ms")


@pytest.fixture
def ledger(tmp_path):
    """An upstream with a ledger."""
    upstream = Ledger(tmp_path)
    yield upstream
    upstream.kill()


@pytest.fixture
def start(tmp_path, ledger):
    """Starts gateways before it; all of them end with the test."""
    started = []

    def begin(*options: str, upstream: str | None = None) -> Gateway:
        started.append(Gateway(upstream or ledger.url, tmp_path, *options))
        return started[-1]

    yield begin
    for gateway in started:
        gateway.kill()
        assert "Traceback" not in gateway.log


def code(answer):
    """What a refusal says; the status of anything else."""
    return answer.json["code"] if answer.status == 409 else answer.status


def becomes_unknown(port, key):
    """A retry meets a claim until its lease has lapsed, and an unknown outcome from then on."""
    first = code(keyed(port, key))
    until(lambda: code(keyed(port, key)) != "in-progress", "the end of the lease")
    return first, code(keyed(port, key))


# --- kill -9 --------------------------------------------------------------------------------------


WHO = """
from retrysafe.recovery import Identity

def reauthenticate(account):
    return Identity(headers={"X-By": account})
"""


def recovers(folder):
    """The options of a gateway whose abandoned requests are sent again, and runs that do it beside it."""
    (folder / "who.py").write_text(WHO)
    (folder / "keys").write_text("ab" * 32)
    options = ("--reauthenticate", "who:reauthenticate", "--encryption-keys-file", "keys", "--policy", "recovery=rerun")
    return (*SHORT_LEASE, *options)


@pytest.mark.parametrize("beside", [True, False])
def test_nobody_retries_and_the_request_is_sent_again(beside, start, ledger, tmp_path):
    """The gateway dies after the upstream has begun: the completer goes on, through the gateway's own door.

    What the upstream does about a key that it has seen is for the upstream; this one does it once more.
    """
    options = recovers(tmp_path)
    gateway = start(*options)
    thread, _ = in_thread(partial(keyed, gateway.port, "k", **{"X-Hold": "after"}))
    held = ledger.arrival("after")
    gateway.kill()
    thread.join(10)
    os.close(held)
    assert ledger.orders == 1
    if beside:
        end_s = time.monotonic() + 2.5
        until(lambda: time.monotonic() > end_s, "the claim has lapsed")
        recover = [sys.executable, "-m", "retrysafe", "recover", "--once", "--upstream", ledger.url, "--scope",
                   "header:X-Account-Id", "--store", f"sqlite:///{tmp_path / 'records.db'}", *options]  # fmt: skip
        resent = subprocess.Popen(recover, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True)
        os.close(ledger.arrival("after"))  # the stored request is the whole request
        assert resent.communicate(timeout=20)[0] == "driven 1\n"
        again = start(*options)
    else:
        again = start(*options, "--complete-abandoned", "100ms")
        os.close(ledger.arrival("after"))
    until(lambda: keyed(again.port, "k").status == 201, "the record is completed")
    assert keyed(again.port, "k").value("Idempotent-Replayed") == "true"
    assert ledger.orders == 2


@pytest.mark.parametrize("point", ["before", "after"])
def test_a_crash_around_the_effect_leaves_the_outcome_unknown(point, ledger, start):
    """Killed while the upstream works: retries are refused, first as in flight, then as unknown; one effect."""
    gateway = start(*SHORT_LEASE)
    thread, _ = in_thread(lambda: keyed(gateway.port, "key-1", x_hold=point))
    held = ledger.arrival(point)
    gateway.kill()
    os.close(held)
    thread.join(10)
    until(lambda: ledger.orders == 1, "the effect, which nobody could stop")

    restarted = start(*SHORT_LEASE)
    first, last = becomes_unknown(restarted.port, "key-1")
    assert first in ("in-progress", "outcome-unknown")  # as long as it took to start
    assert last == "outcome-unknown"
    assert ledger.orders == 1
    assert keyed(restarted.port, "key-2").status == 201


def test_a_crash_of_both_before_the_effect_is_not_repaired_by_guessing(ledger, start, tmp_path):
    """Nothing happened, and nobody can know: no retry makes it happen."""
    gateway = start(*SHORT_LEASE)
    thread, _ = in_thread(lambda: keyed(gateway.port, "key-1", x_hold="before"))
    held = ledger.arrival("before")
    gateway.kill()
    ledger.kill()
    os.close(held)
    thread.join(10)
    revived = Ledger(tmp_path)
    try:
        restarted = start(*SHORT_LEASE, upstream=revived.url)
        assert becomes_unknown(restarted.port, "key-1")[1] == "outcome-unknown"
        assert revived.orders == 0
    finally:
        revived.kill()


def test_a_crash_after_the_record_loses_nothing(ledger, start):
    """An answer that was given is given again after a crash, byte for byte."""
    gateway = start()
    first = keyed(gateway.port, "key-1")
    gateway.kill()
    again = keyed(start().port, "key-1")
    assert (again.status, again.body) == (first.status, first.body) == (201, b'{"order": 1}')
    assert again.value("Idempotent-Replayed") == "true"
    assert ledger.orders == 1


def test_a_client_that_gave_up_gets_the_answer_later(ledger, start):
    """Time-out, retry, retry: one effect, and its answer."""
    gateway = start()
    impatient = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=0.2)
    fields = {"X-Account-Id": "me", "Idempotency-Key": "key-1", "Content-Type": "text/plain", "X-Hold": "after"}
    impatient.request("POST", "/orders", b"order", fields)
    with pytest.raises(TimeoutError):
        impatient.getresponse()
    impatient.close()
    assert code(keyed(gateway.port, "key-1")) == "in-progress"
    os.close(ledger.arrival("after"))
    until(lambda: keyed(gateway.port, "key-1").status == 201, "the answer")
    assert keyed(gateway.port, "key-1").value("Idempotent-Replayed") == "true"
    assert ledger.orders == 1


def test_two_gateways_over_one_store_are_one(ledger, start):
    """Racing through two processes, one key has one effect."""
    ports = [start().port, start().port]
    racing = [in_thread(partial(keyed, ports[number % 2], "key-1")) for number in range(12)]
    for thread, _ in racing:
        thread.join(10)
    seen = {code(result[0]) for _, result in racing}
    assert seen <= {201, "in-progress"}
    assert {keyed(port, "key-1").body for port in ports} == {b'{"order": 1}'}
    assert ledger.orders == 1


# --- orderly ends ---------------------------------------------------------------------------------


def test_ending_waits_for_what_runs(ledger, start):
    """SIGTERM: nothing new is let in, everything that runs is answered and recorded, and the exit is clean."""
    gateway = start()
    running = [in_thread(partial(keyed, gateway.port, f"key-{number}", x_hold="after")) for number in range(5)]
    until(lambda: ledger.orders == 5, "the effects")
    held = ledger.arrival("after")
    gateway.terminate()
    until(lambda: _refuses(gateway.port), "the end of listening")
    os.close(held)
    until(lambda: _all_let_go(ledger, running), "the answers")
    assert sorted(result[0].status for _, result in running) == [201] * 5
    assert gateway.ended() == 0
    restarted = start()
    for number in range(5):
        assert keyed(restarted.port, f"key-{number}").value("Idempotent-Replayed") == "true"
    assert ledger.orders == 5


def test_ending_sends_away_who_waits(ledger, start):
    """SIGTERM: a duplicate that waits for a running request gets its 409 now, and the running one its time."""
    gateway = start("--policy", "in_flight=wait", "--policy", "wait=60s")
    owner, owned = in_thread(lambda: keyed(gateway.port, "key-1", x_hold="after"))
    held = ledger.arrival("after")
    waiter, waited = in_thread(lambda: keyed(gateway.port, "key-1", x_hold="after"))
    waiter.join(1)
    assert not waited
    gateway.terminate()
    until(lambda: waited, "the 409")
    assert code(waited[0]) == "in-progress"
    assert not owned
    os.close(held)
    owner.join(20)
    assert owned[0].status == 201
    assert gateway.ended() == 0
    assert ledger.orders == 1


def _all_let_go(ledger, running):
    """Open the pipe once more for whoever came to it late."""
    with suppress(OSError):
        os.close(os.open(ledger.folder / "after", os.O_WRONLY | os.O_NONBLOCK))
    return all(result for _, result in running)


def _refuses(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize(("drain", "signals"), [("300ms", 1), ("10m", 2)])
def test_ending_does_not_wait_for_ever(drain, signals, ledger, start):
    """After the drain, or at a second signal, what still runs is cut off: its client and its record say unknown."""
    gateway = start("--drain", drain)
    thread, results = in_thread(lambda: keyed(gateway.port, "key-1", x_hold="after"))
    held = ledger.arrival("after")
    for number in range(signals):
        if number:
            until(lambda: _refuses(gateway.port), "the first signal's effect")
        gateway.terminate()
    assert gateway.ended() == 0
    thread.join(10)
    assert code(results[0]) == "outcome-unknown"
    os.close(held)
    assert code(keyed(start().port, "key-1")) == "outcome-unknown"
    assert ledger.orders == 1


def test_ending_cuts_off_what_has_no_key(ledger, start):
    """A client without a key that outlasts the drain is told that its request may have had its effect."""
    gateway = start("--drain", "200ms")
    thread, results = in_thread(lambda: call(gateway.port, "POST", "/orders", b"order", X_Hold="after"))
    held = ledger.arrival("after")
    gateway.terminate()
    assert gateway.ended() == 0
    thread.join(10)
    (answer,) = results
    assert (answer.status, answer.json["code"], answer.json["retryable"]) == (502, "upstream-failed", False)
    os.close(held)


def test_ending_does_not_wait_for_a_client_that_does_not_read(start):
    """Bytes that nobody takes are not waited for."""
    gateway = start("--drain", "200ms")
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        client.sendall(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(1)
        gateway.terminate()
        assert gateway.ended() == 0


def test_health_is_told_apart(ledger, start):
    """Ready until the end begins, alive until it is over, on a listener of its own."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        health_port = probe.getsockname()[1]
    gateway = start("--health-listen", f"127.0.0.1:{health_port}")
    assert call(gateway.port, "GET", "/readyz").json == {"orders": 0}  # the upstream's own
    assert [call(health_port, "GET", path).status for path in ("/livez", "/readyz", "/")] == [200, 200, 404]
    thread, _ = in_thread(lambda: keyed(gateway.port, "key-1", x_hold="after"))
    held = ledger.arrival("after")
    gateway.terminate()
    until(lambda: call(health_port, "GET", "/readyz").status == 503, "readiness to end")
    assert call(health_port, "GET", "/livez").status == 200
    os.close(held)
    thread.join(10)
    assert gateway.ended() == 0


# --- starts that fail -----------------------------------------------------------------------------


def started(tmp_path, *options, **variables):
    """A start that is expected to fail: exit code and what was said."""
    command = ["retrysafe", "serve", "--upstream", "http://127.0.0.1:9", *options]
    done = forked.run(*command, cwd=tmp_path, env=environment(**variables))
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.strip().splitlines()


def test_an_address_in_use_is_one_sentence(tmp_path):
    """The setting is named, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        given = ("--listen", address, "--store", "memory://", "--scope", "anonymous")
        status, (line,) = started(tmp_path, *given)
    assert status == 3
    assert f"listen is {address}" in line
    assert "Address already in use" in line


def test_a_store_that_cannot_be_reached_is_one_sentence(tmp_path):
    """So is this."""
    given = ("--listen", "127.0.0.1:0", "--store", f"sqlite:///{tmp_path}/nowhere/records.db", "--scope", "anonymous")
    status, lines = started(tmp_path, *given)
    assert status == 3
    assert len(lines) == 1
    assert "nowhere" in lines[0]


def test_another_secret_is_refused(tmp_path):
    """Keys would all look new: the process does not start."""
    given = ("--listen", "127.0.0.1:0", "--store", f"sqlite:///{tmp_path}/records.db", "--scope", "anonymous")
    gateway = Gateway("http://127.0.0.1:9", tmp_path)
    gateway.terminate()
    assert gateway.ended() == 0
    status, lines = started(tmp_path, *given, RETRYSAFE_SECRET="another secret, of 32 characters")
    assert status == 3
    assert "secret" in lines[0]
    assert "another secret" not in lines[0]


def test_everything_wrong_is_told_at_once(tmp_path):
    """All faults, one line each, and the exit code of a configuration."""
    status, lines = started(tmp_path, "--listen", "nowhere", "--policy", "lease=never", "--policy", "leese=5s")
    assert status == 2
    assert len(lines) == 5


# --- at rest --------------------------------------------------------------------------------------


def test_answers_are_encrypted(ledger, start, tmp_path):
    """With keys from a file: nothing of an answer in the store's files; without them it is not given, and not run."""
    (tmp_path / "keys").write_text("ab" * 32 + "\n")
    gateway = start("--encryption-keys-file", str(tmp_path / "keys"))
    assert keyed(gateway.port, "key-1").body == b'{"order": 1}'
    files = [file for file in tmp_path.iterdir() if file.name.startswith("records.db")]
    assert len(files) == 3
    assert not [file for file in files if b"order" in file.read_bytes()]
    assert keyed(gateway.port, "key-1").value("Idempotent-Replayed") == "true"
    without = start()
    assert code(keyed(without.port, "key-1")) == "replay-unavailable"
    assert ledger.orders == 1
