from __future__ import annotations

import socket

import pytest

from retrysafe.demo import processes
from retrysafe.demo.processes import HOST, await_ready, child, free_port, stay_open
from retrysafe.errors import RetrysafeError

STUBBORN = """
import signal, socket, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    while True:
        caller, _ = server.accept()
        caller.recv(4096)
        caller.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
        caller.close()
"""


def test_a_free_port_is_given_to_nobody_else_and_can_be_listened_on():
    """Who asks for any port gets another one; who asks for this one gets it."""
    port = free_port()
    assert port not in {free_port() for _ in range(50)}
    with socket.create_server((HOST, port)) as server:
        assert server.getsockname()[1] == port


def test_a_child_ends_with_its_context_even_if_it_does_not_want_to(tmp_path, monkeypatch):
    """An error in the middle, and a child that ignores SIGTERM: it is gone all the same."""
    monkeypatch.setattr(processes, "_END_S_MAX", 0.1)
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    port = free_port()
    servers = []

    def fail_while_it_runs() -> None:
        with child("stubborn", ("stubborn", str(port)), port, tmp_path, {}) as server:
            servers.append(server)
            await_ready(server, "/")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_while_it_runs()
    assert [server.process.returncode for server in servers] == [-9]


def test_a_child_that_fails_at_its_start_is_quoted(tmp_path):
    """The message names the server, its exit code, and what it printed."""
    (tmp_path / "failing.py").write_text("import sys; sys.exit('no such upstream')")
    port = free_port()
    with (
        child("gateway", ("failing",), port, tmp_path, {}) as server,
        pytest.raises(
            RetrysafeError, match=r"gateway ended at its start with exit code 1. It printed: no such upstream"
        ),
    ):
        await_ready(server, "/")


def test_a_child_that_never_answers_is_given_up(tmp_path, monkeypatch):
    """The wait has a bound."""
    monkeypatch.setattr(processes, "_START_S_MAX", 0.2)
    (tmp_path / "silent.py").write_text("import signal; signal.pause()")
    port = free_port()
    with (
        child("shop", ("silent",), port, tmp_path, {}) as server,
        pytest.raises(RetrysafeError, match=r"shop does not answer after .* It printed: nothing"),
    ):
        await_ready(server, "/")


def test_a_server_that_ends_while_it_should_stay_is_no_clean_end(tmp_path):
    """Nobody is left in front of an address where nothing answers."""
    (tmp_path / "leaving.py").write_text("import sys; sys.exit('out of memory')")
    with (
        child("gateway", ("leaving",), 1, tmp_path, {}) as server,
        pytest.raises(RetrysafeError, match=r"gateway ended with exit code 1. It printed: out of memory"),
    ):
        stay_open(server)


def test_a_child_does_not_read_the_users_configuration(tmp_path, monkeypatch):
    """It runs in the demo's folder, and our environment variables are not handed down."""
    monkeypatch.setenv("RETRYSAFE_POLICY", "lifetime=1ms")
    (tmp_path / "telling.py").write_text("import os; print(os.getcwd(), os.environ.get('RETRYSAFE_POLICY'))")
    with child("telling", ("telling",), 1, tmp_path, {}) as server:
        assert server.process.wait(10) == 0
    assert server.log.read_text().split() == [str(tmp_path), "None"]
