"""`python -m MODULE` without its start: each process is forked from one that has imported what most of them need.

The tests start hundreds of servers and commands, and to import the same packages each time is most of what that costs.
A process has its own number, environment, folder and files, runs its module as `__main__`, and can be killed. Modules
of the tests and settings are read after the fork. Not as after a start: what is in `sys.modules` already, the order of
what was registered with `atexit` by then, the seed of `hash`, and what an interpreter complains of when it takes its
modules apart. What is about these, or is to print nothing, gets an interpreter of its own
(`retrysafe.demo.processes.child`).

    python -m tests.forked DESCRIPTOR

is the process that forks. It is told on a socket, a packet each: what to start, with the files for its output, answered
with the number of the new process; or the number of one that has ended, answered with its wait status. When the other
end of the socket is closed it ends, and with it its group: all that it forked, and what that started.
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
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from retrysafe.demo.processes import Child, end

ROOT = Path(__file__).parents[1]
_PACKET_BYTES_MAX = 1 << 17
_PATIENCE_S = 60
_PR_SET_PDEATHSIG = 1
_NOT_ALL_WRITTEN = 120  # as Python ends when its last output fails

# None of these reads a setting or its arguments when it is imported, or opens anything; and none is looked for in
# `sys.modules` by the package.
_PRELOADED = (
    "aiosqlite", "asyncmy", "asyncpg", "django.contrib.sessions.backends.db", "django.core.handlers.asgi",
    "django.core.management", "django.core.wsgi", "django.db.backends.sqlite3.base", "django.db.models", "django.test",
    "django.views.generic", "flask", "gunicorn.workers.gthread", "httptools", "httpx", "hypercorn.asyncio.run",
    "hypercorn.run", "litestar", "psycopg", "pymysql", "rest_framework", "retrysafe.asgi", "retrysafe.cli",
    "retrysafe.flask", "retrysafe.gateway.app", "retrysafe.litestar", "retrysafe.starlette", "retrysafe.stores.sqlite",
    "retrysafe.wsgi", "sqlalchemy.ext.asyncio", "uvicorn.lifespan.on", "uvicorn.loops.uvloop", "uvicorn.main",
    "uvicorn.protocols.http.h11_impl", "uvicorn.protocols.http.httptools_impl",
    "uvicorn.protocols.websockets.wsproto_impl", "waitress",
)  # fmt: skip


class Forked:
    """A process that was forked; to whom it belongs it is what `subprocess.Popen` would be."""

    def __init__(self, forks: _Forks, arguments: Sequence[str], pid: int) -> None:
        self.args = arguments
        self.pid = pid
        self.returncode: int | None = None
        self._forks = forks
        self._asking = threading.Lock()
        self._process = os.pidfd_open(pid)
        weakref.finalize(self, os.close, self._process)

    def poll(self) -> int | None:
        """How it ended, as an exit code or a negative signal number; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The same, once it has ended."""
        watch = select.poll()
        watch.register(self._process, select.POLLIN)
        if not watch.poll(None if timeout is None else max(0, timeout) * 1_000):
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        with self._asking:
            if self.returncode is None:
                self.returncode = os.waitstatus_to_exitcode(self._forks.ask(self.pid))
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def start(
    *words: str, cwd: Path, env: Mapping[str, str], stdout: IO[Any] | None = None, stderr: IO[Any] | None = None
) -> Forked:
    """Run a module with its arguments; where no file is given for its output, that goes where the tests' own goes."""
    for name in {*env, *os.environ}:  # an interpreter looks at these when it starts
        if name.startswith("PYTHON") and name != "PYTHONPATH" and env.get(name) != os.environ.get(name):
            raise ValueError(
                f"{name} of a process that is forked is that of the tests; start an interpreter for another"
            )
    descriptors = [1 if stdout is None else stdout.fileno(), 2 if stderr is None else stderr.fileno()]
    forks = _forks()
    pid = forks.ask({"words": words, "folder": str(cwd), "environment": dict(env)}, descriptors)
    return Forked(forks, words, pid)


def run(
    *words: str, cwd: Path, env: Mapping[str, str], timeout: float = _PATIENCE_S
) -> subprocess.CompletedProcess[str]:
    """Run a module with its arguments to its end; how it ended, and what it printed."""
    with TemporaryFile("w+") as printed, TemporaryFile("w+") as complaints:

        def said() -> list[str]:
            return [file.read() for file in (printed, complaints) if not file.seek(0)]

        process = start(*words, cwd=cwd, env=env, stdout=printed, stderr=complaints)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise subprocess.TimeoutExpired(words, timeout, *said()) from None
        finally:
            process.kill()
            process.wait()
        return subprocess.CompletedProcess(words, code, *said())


@contextmanager
def child(name: str, module: Sequence[str], port: int, folder: Path, environment: Mapping[str, str]) -> Iterator[Child]:
    """What `retrysafe.demo.processes.child` does."""
    log = folder / f"{name}.log"
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)  # noqa: PTH100 - "" is the current folder
    with log.open("wb") as sink:
        variables = {**_inherited(), "PYTHONPATH": paths, **environment}
        process: Any = start(*module, cwd=folder, env=variables, stdout=sink, stderr=sink)
    try:
        yield Child(name, port, process, log)
    finally:
        end(process)


def _inherited() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("RETRYSAFE_")}


class _Forks:
    """The process that forks, from outside."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._turn = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(_PATIENCE_S)
        paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forked", str(theirs.fileno())], cwd=ROOT, process_group=0,
                env={**_inherited(), "PYTHONPATH": paths}, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
            )  # fmt: skip

        atexit.register(self.close)

    @property
    def serves(self) -> bool:
        """It can still be asked, by this process."""
        return self.owner == os.getpid() and self._socket.fileno() >= 0

    def close(self) -> None:
        """End it, and what it forked; in a child of this process, leave it to the parent."""
        if self.serves:
            self._socket.close()
            self._process.wait(_PATIENCE_S)

    def ask(self, question: object, descriptors: Sequence[int] = ()) -> int:
        """One question and its answer; after a failure there are no others, because answers have no names."""
        packet = json.dumps(question).encode()
        if len(packet) > _PACKET_BYTES_MAX:
            raise ValueError(
                f"{len(packet)} bytes of arguments and environment; {_PACKET_BYTES_MAX} can be handed over"
            )
        with self._turn:
            try:
                socket.send_fds(self._socket, [packet], descriptors)
                return int(self._socket.recv(_PACKET_BYTES_MAX))
            except (OSError, ValueError) as error:
                self.close()
                raise RuntimeError("the process that forks has ended, and with it what it had forked") from error


_all: list[_Forks] = []  # the last one is asked
_starting = threading.Lock()


def _forks() -> _Forks:
    """The process that forks for this one."""
    with _starting:
        if not _all or not _all[-1].serves:
            _all.append(_Forks())
        return _all[-1]


# --- the process that forks -----------------------------------------------------------------------


def _forked(orders: socket.socket) -> dict[str, Any]:
    """Fork for as long as somebody asks; in each new process, what it is to do."""
    here = os.getpid()
    while True:
        packet, descriptors, _, _ = socket.recv_fds(orders, _PACKET_BYTES_MAX, 2)
        if not packet:
            os.killpg(0, signal.SIGKILL)
        told = json.loads(packet)
        if isinstance(told, int):
            answer = os.waitpid(told, 0)[1]
        elif not (answer := os.fork()):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != here:
                os.kill(os.getpid(), signal.SIGKILL)
            orders.close()
            for number, descriptor in enumerate(descriptors, 1):
                os.dup2(descriptor, number)
                os.close(descriptor)
            order: dict[str, Any] = told
            return order
        for descriptor in descriptors:
            os.close(descriptor)
        orders.send(str(answer).encode())


def _become(order: dict[str, Any]) -> int:
    """Be what `python -m` would be; the exit code, or a negative signal number."""
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    time.tzset()
    ours = {str(ROOT), str(ROOT / "src")}
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [order["folder"], *given, *(path for path in sys.path if path not in ours)]
    module, *arguments = order["words"]
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as left:
        if left.code is None or isinstance(left.code, int):
            return (left.code or 0) & 0xFF
        sys.stderr.write(f"{left.code}\n")
        return 1
    except BaseException as error:  # noqa: BLE001 - whatever it is, an interpreter says so and ends
        sys.excepthook(type(error), error, error.__traceback__)
        return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _leave(code: int) -> None:
    """End as an interpreter does, but for taking apart all modules: to write to each would copy them."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as every interpreter does
        atexit._run_exitfuncs()
        gc.collect()  # what nobody awaited is complained of now
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, ValueError):
                stream.flush()
    except OSError:
        code = _NOT_ALL_WRITTEN
    finally:
        if code < 0:
            signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
        os._exit(code)


def _serve(descriptor: int) -> None:
    for module in _PRELOADED:
        import_module(module)
    gc.freeze()  # what is never written again stays shared
    order = _forked(socket.socket(fileno=descriptor))
    _leave(_become(order))


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
