"""Children of the demo: started on free loopback ports, waited for with a bound, ended without fail."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from retrysafe.errors import RetrysafeError

HOST = "127.0.0.1"
_START_S_MAX = 15
_POLL_S = 0.05
_END_S_MAX = 5
_LOG_CHARACTERS_MAX = 2_000


@dataclass(frozen=True, slots=True)
class Child:
    """A server in a process of its own.

    Attributes:
        name: for people.
        port: where it listens, on `HOST`.
        process: the process itself.
        log: the file that takes what it prints.
    """

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"http://{HOST}:{self.port}"


@contextmanager
def child(name: str, module: Sequence[str], port: int, folder: Path, environment: Mapping[str, str]) -> Iterator[Child]:
    """Run `python -m module...` for as long as the context lasts.

    Args:
        name: for people, and of the log file.
        module: the module and its arguments.
        port: where it will listen.
        folder: where it runs and logs; away from the user's folder, so that it reads no configuration there.
        environment: added to ours, from which our own settings are taken out for the same reason.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RETRYSAFE_")}
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)  # noqa: PTH100 - "" is the current folder
    log = folder / f"{name}.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own modules
            [sys.executable, "-m", *module],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**inherited, "PYTHONPATH": paths, **environment},
        )
    try:
        yield Child(name, port, process, log)
    finally:
        end(process)


def await_ready(server: Child, path: str) -> None:
    """Wait until the server answers `GET path` with 200.

    Raises:
        RetrysafeError: it ended, or has not answered in time. The message has the end of its log.
    """
    deadline_s = time.monotonic() + _START_S_MAX
    while not _answers(server.port, path):
        try:
            code = server.process.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            if time.monotonic() < deadline_s:
                continue
            _give_up(server, f"does not answer after {_START_S_MAX} s")
        _give_up(server, f"ended at its start with exit code {code}")


def stay_open(server: Child) -> None:
    """Wait for Ctrl-C.

    Raises:
        RetrysafeError: the server ended for reasons of its own.
    """
    try:
        code = server.process.wait()
    except KeyboardInterrupt:
        return
    _give_up(server, f"ended with exit code {code}")


def free_port() -> int:
    """A loopback port that nobody else is given while its user starts.

    A connection is made to it and closed from the listening side. The port then lingers in TIME_WAIT:
    the system hands it to no one who asks for any port, and lets in who asks for this one.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, 0))
        listener.listen(1)
        with socket.create_connection(listener.getsockname()) as caller:
            accepted, _ = listener.accept()
            accepted.close()
            caller.recv(1)
        port: int = listener.getsockname()[1]
    return port


@contextmanager
def terminated_politely() -> Iterator[None]:
    """Let a SIGTERM unwind the stack, so that contexts end their children, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and see to it that it does."""
    process.terminate()
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S_MAX)
    finally:
        process.kill()  # does nothing to one that has ended
        process.wait()


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=1)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _give_up(server: Child, how: str) -> NoReturn:
    printed = server.log.read_text(errors="replace").strip()[-_LOG_CHARACTERS_MAX:]
    raise RetrysafeError(f"{server.name} {how}. It printed: {printed or 'nothing'}")
