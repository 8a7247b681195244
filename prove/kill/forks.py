"""A process that has imported everything and does nothing but fork: a new server in some milliseconds.

    python -m prove.kill.forks DESCRIPTOR STORE

It is told on a socket, a packet each: an order with a listener and a control socket, answered with the number of the
new process; or the number of a process, answered with its wait status, or nothing while it runs. When the other end
of the socket is closed, it ends with everything that it has forked.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Self

from prove.kill.orders import Order
from retrysafe.stores.location import open_store

ROOT = Path(__file__).parents[2]
_PACKET_BYTES_MAX = 1 << 16
_PATIENCE_S = 20
_PR_SET_PDEATHSIG = 1
_PRELOADED = (
    "prove.kill.worker", "uvloop", "httptools", "uvicorn.protocols.http.httptools_impl", "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
)  # fmt: skip


class Forks:
    """The fork server, from outside; a context manager.

    Args:
        folder: for what its processes print.
        store: URL of the store that they use.
    """

    def __init__(self, folder: Path, store: str) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RETRYSAFE_")}
        self.log = folder / "processes.log"
        with theirs, self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "prove.kill.forks", str(theirs.fileno()), store],
                pass_fds=[theirs.fileno()],
                cwd=folder,  # away from the user's folder, so that nothing reads a configuration there
                env={**inherited, "PYTHONPATH": paths},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._socket = ours
        self._socket.settimeout(_PATIENCE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._socket.close()
        self._process.wait(_PATIENCE_S)

    def fork(self, order: Order, listener: socket.socket, control: socket.socket) -> int:
        """A new process that serves; its number."""
        socket.send_fds(self._socket, [order.encoded()], [listener.fileno(), control.fileno()])
        return int(self._socket.recv(_PACKET_BYTES_MAX))

    def status(self, process_id: int) -> int | None:
        """How it ended, as an exit code or a negative signal number; None while it runs."""
        self._socket.send(str(process_id).encode())
        status = self._socket.recv(_PACKET_BYTES_MAX)
        return None if status == b"runs" else os.waitstatus_to_exitcode(int(status))


def main(descriptor: int, store: str) -> None:
    """The fork server itself."""
    _die_with_parent()
    for module in _PRELOADED:
        import_module(module)
    open_store(store)  # for what it imports and reads; it touches nothing
    alive: set[int] = set()
    with socket.socket(fileno=descriptor) as orders:
        while True:
            packet, descriptors, _, _ = socket.recv_fds(orders, _PACKET_BYTES_MAX, 2)
            if not packet:
                break
            if descriptors:
                alive.add(process_id := _forked(packet, descriptors, orders))
                orders.send(str(process_id).encode())
            else:
                found, status = os.waitpid(int(packet), os.WNOHANG)
                alive.discard(found)
                orders.send(str(status).encode() if found else b"runs")
    for process_id in alive:
        with suppress(ProcessLookupError):
            os.kill(process_id, signal.SIGKILL)


def _forked(packet: bytes, descriptors: list[int], orders: socket.socket) -> int:
    sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    if process_id := os.fork():
        for one in sockets:
            one.close()
        return process_id
    code = 1
    try:
        _die_with_parent()
        orders.close()
        from prove.kill.worker import serve  # noqa: PLC0415 - imported before, where it is preloaded

        serve(Order.decoded(packet), *sockets)
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it is, the process ends here, and not in the parent's loop
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _die_with_parent() -> None:
    """Nothing stays when whoever wanted it is gone, however that came about."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
