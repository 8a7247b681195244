"""`python -m MODULE` without its start: each process is forked from one that has imported what most of them need.

The tests start hundreds of servers and commands, and to import the same packages each time is most of what that costs.
Nothing else differs: a process has its own number, environment, folder and files, runs its module as `__main__`, and
can be killed. Modules of the tests and settings are read after the fork. What is about the start itself, about options
of the interpreter or about pipes starts an interpreter of its own.

    python -m tests.forked DESCRIPTOR

is the process that forks. It is told on a socket, a packet each: what to start, with the files for its output, answered
with the number of the new process; or the number of one that has ended, answered with its wait status. When the other
end of the socket is closed it ends, and with it all that it forked.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from retrysafe.demo.processes import Child

ROOT = Path(__file__).parents[1]
_PACKET_BYTES_MAX = 1 << 17
_PATIENCE_S = 60
_END_S_MAX = 5
_PR_SET_PDEATHSIG = 1

# None of these reads a setting or its arguments when it is imported, or opens anything.
_PRELOADED = (
    "aiosqlite", "asyncmy", "asyncpg", "django.contrib.sessions.backends.db", "django.core.handlers.asgi",
    "django.core.management", "django.core.wsgi", "django.db.backends.sqlite3.base", "django.db.models", "django.test",
    "django.views.generic", "fastapi", "flask", "gunicorn.workers.gthread", "httptools",
    "httpx", "hypercorn.__main__", "litestar", "psycopg", "pymysql", "rest_framework", "retrysafe.asgi",
    "retrysafe.cli", "retrysafe.fastapi", "retrysafe.flask", "retrysafe.gateway.app", "retrysafe.litestar",
    "retrysafe.starlette", "retrysafe.stores.sqlite", "retrysafe.wsgi", "sqlalchemy.ext.asyncio",
    "uvicorn.lifespan.on", "uvicorn.loops.uvloop", "uvicorn.main", "uvicorn.protocols.http.h11_impl",
    "uvicorn.protocols.http.httptools_impl", "uvicorn.protocols.websockets.wsproto_impl", "waitress",
)  # fmt: skip


class Forked:
    """A process that was forked; to whom it belongs it is what `subprocess.Popen` would be."""

    def __init__(self, forks: _Forks, arguments: Sequence[str], pid: int) -> None:
        self.args = arguments
        self.pid = pid
        self.returncode: int | None = None
        self._forks = forks
        self._end = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """How it ended, as an exit code or a negative signal number; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The same, once it has ended."""
        if self.returncode is None:
            watch = select.poll()
            watch.register(self._end, select.POLLIN)
            if not watch.poll(None if timeout is None else timeout * 1_000):
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = self._forks.status(self.pid)
            os.close(self._end)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it is known to have ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def start(
    *words: str,
    cwd: Path,
    env: Mapping[str, str],
    stdout: IO[Any] | int | None = None,
    stderr: IO[Any] | int | None = None,
) -> Forked:
    """Run a module with its arguments; where no file is given for its output, that goes where the tests' own goes."""
    files = [1 if stdout is None else stdout, 2 if stderr is None else stderr]
    descriptors = [file if isinstance(file, int) else file.fileno() for file in files]
    return _forks().fork({"words": words, "folder": str(cwd), "environment": dict(env)}, descriptors)


def run(
    *words: str, cwd: Path, env: Mapping[str, str], timeout: float = _PATIENCE_S
) -> subprocess.CompletedProcess[str]:
    """Run a module with its arguments to its end; how it ended, and what it printed."""
    with TemporaryFile("w+") as printed, TemporaryFile("w+") as complaints:
        process = start(*words, cwd=cwd, env=env, stdout=printed, stderr=complaints)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        printed.seek(0)
        complaints.seek(0)
        return subprocess.CompletedProcess(words, code, printed.read(), complaints.read())


@contextmanager
def child(name: str, module: Sequence[str], port: int, folder: Path, environment: Mapping[str, str]) -> Iterator[Child]:
    """What `retrysafe.demo.processes.child` does."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RETRYSAFE_")}
    log = folder / f"{name}.log"
    with log.open("wb") as sink:
        paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)  # noqa: PTH100 - "" is the current folder
        variables = {**inherited, "PYTHONPATH": paths, **environment}
        process: Any = start(*module, cwd=folder, env=variables, stdout=sink, stderr=sink)
    try:
        yield Child(name, port, process, log)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S_MAX)
        process.kill()
        process.wait()


class _Forks:
    """The process that forks, from outside."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(_PATIENCE_S)
        command = [sys.executable, "-m", "tests.forked", str(theirs.fileno())]
        paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RETRYSAFE_")}
        with theirs:  # not waited for: it ends when this process does, however that comes about
            self._process = subprocess.Popen(
                command, cwd=ROOT, env={**inherited, "PYTHONPATH": paths},
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def fork(self, order: dict[str, Any], descriptors: list[int]) -> Forked:
        """A new process."""
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(order).encode()], descriptors)
            return Forked(self, order["words"], int(self._socket.recv(_PACKET_BYTES_MAX)))

    def status(self, pid: int) -> int:
        """How a process that has ended did so."""
        with self._lock:
            self._socket.send(json.dumps(pid).encode())
            return os.waitstatus_to_exitcode(int(self._socket.recv(_PACKET_BYTES_MAX)))


_running: list[_Forks] = []
_starting = threading.Lock()


def _forks() -> _Forks:
    """The process that forks for this one."""
    with _starting:
        if not _running or _running[0].owner != os.getpid():
            _running[:] = [_Forks()]
        return _running[0]


# --- the process that forks ------------------------------------------------------------------------


def _forked(orders: socket.socket) -> dict[str, Any] | None:
    """Fork until nobody is there any more; in each new process, what it is to do."""
    alive: set[int] = set()
    while True:
        packet, descriptors, _, _ = socket.recv_fds(orders, _PACKET_BYTES_MAX, 2)
        if not packet:
            break
        told = json.loads(packet)
        if isinstance(told, int):
            _, status = os.waitpid(told, 0)
            alive.discard(told)
            orders.send(str(status).encode())
            continue
        if not (process_id := os.fork()):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            for number, descriptor in enumerate(descriptors, 1):
                os.dup2(descriptor, number)
                os.close(descriptor)
            order: dict[str, Any] = told
            return order
        alive.add(process_id)
        for descriptor in descriptors:
            os.close(descriptor)
        orders.send(str(process_id).encode())
    for process_id in alive:
        os.kill(process_id, signal.SIGKILL)
    return None


def _become(order: dict[str, Any]) -> None:
    """Be what `python -m` would be."""
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    ours = {str(ROOT), str(ROOT / "src")}
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [order["folder"], *given, *(path for path in sys.path if path not in ours)]
    module, *arguments = order["words"]
    sys.argv = [module, *arguments]
    code = 1
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as exit_:
        code = _code_of(exit_)
    except BaseException:  # noqa: BLE001 - whatever it is, an interpreter says so and ends
        traceback.print_exc()
    finally:  # what an interpreter does, but for taking apart all modules: to write to each would copy them
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _code_of(exit_: SystemExit) -> int:
    if exit_.code is None or isinstance(exit_.code, int):
        return exit_.code or 0
    sys.stderr.write(f"{exit_.code}\n")
    return 1


def _serve(descriptor: int) -> dict[str, Any] | None:
    for module in _PRELOADED:
        import_module(module)
    gc.freeze()  # what is never written again stays shared
    with ExitStack() as stack:
        return _forked(stack.enter_context(socket.socket(fileno=descriptor)))


if __name__ == "__main__" and (_order := _serve(int(sys.argv[1]))):
    _become(_order)
