"""The servers under measurement: plain processes on free ports, each on the core it is given."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.load import SpoiltError

CORE = 0
ROOT = Path(__file__).resolve().parents[1]
_READY_S_MAX = 15.0
_STOP_S_MAX = 15.0
_POLL_S = 0.02
THREADS = 64  # of a blocking server: one for each connection of the load
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers on a port of 127.0.0.1."""

    port: int
    pid: int

    @property
    def url(self) -> str:
        """Where it answers, without a path."""
        return f"http://127.0.0.1:{self.port}"

    def cpu_s(self) -> float:
        """Processor time that the process and its workers have used so far."""
        return tree_cpu_s(self.pid)

    def resident_mib(self) -> float:
        """Memory that the process and its workers hold."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) for pid in _tree(self.pid))
        return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def _ticks(pid: int) -> list[int]:
    """Of the process: user, system, and the same of its children that have ended; empty if it has ended itself."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(ticks) for ticks in fields[11:15]]


def _tree(pid: int) -> list[int]:
    """A process and all below it, as far as they are alive."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        alive = children.read_text(encoding="ascii").split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [pid, *(each for child in alive for each in _tree(int(child)))]


def tree_cpu_s(pid: int) -> float:
    """Processor time of a process and of all its children, those that have ended too."""
    return sum(sum(_ticks(each)) for each in _tree(pid)) / TICKS_PER_SECOND


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def uvicorn(factory: str, port: int, python: Path | str = sys.executable) -> list[str]:
    """The command that serves `module:factory`: uvicorn with uvloop and httptools, one process, no access log."""
    return [
        *(str(python), "-m", "uvicorn", "--factory", factory),
        *("--host", "127.0.0.1", "--port", str(port), "--loop", "uvloop", "--http", "httptools"),
        *("--lifespan", "on", "--no-access-log", "--log-level", "warning"),
    ]


def gunicorn(factory: str, port: int) -> list[str]:
    """The command that serves `module:factory` with threads: gunicorn, one worker, as many threads as connections."""
    return [
        *(sys.executable, "-m", "gunicorn", f"{factory}()", "--bind", f"127.0.0.1:{port}"),
        *("--worker-class", "gthread", "--workers", "1", "--threads", str(THREADS), "--no-control-socket"),
        *("--keep-alive", "30", "--log-level", "warning"),
    ]


@contextmanager
def running(  # noqa: PLR0913 - a process has many circumstances
    command: Sequence[str], port: int, *, core: int, folder: Path, settings: Mapping[str, str], strict: bool = True
) -> Iterator[Server]:
    """Start a server, wait until it answers, and stop it in the end.

    Args:
        command: what to run; it listens on `port`.
        port: of 127.0.0.1.
        core: the only processor core it may use.
        folder: where its output goes.
        settings: environment variables besides our own.
        strict: a traceback in its output is a failure.

    Raises:
        SpoiltError: it did not start, or wrote a traceback and was not to.
    """
    log = folder / f"{port}.log"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", **settings}
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "--cpu-list", str(core), *command], stdout=output, stderr=output, cwd=folder, env=environment
        )
    try:
        _await_ready(process, port)
        yield Server(port, process.pid)
    except SpoiltError as error:
        raise SpoiltError(f"{error}\n{' '.join(command)}\nwrote: {_tail(log)}") from error
    finally:
        _stop(process)
    if strict and b"Traceback" in log.read_bytes():
        raise SpoiltError(f"a server failed while it was measured: {_tail(log)}")


def _await_ready(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + _READY_S_MAX
    while time.monotonic() < until:
        if process.poll() is not None:
            raise SpoiltError(f"a server ended with {process.returncode} before it answered")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(_POLL_S)
    raise SpoiltError(f"a server did not answer within {_READY_S_MAX} s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-4_000:]
