"""The stores' servers: PostgreSQL, Redis and MariaDB, each started when it is first needed, on the load's core.

They are the servers that the tests use, with the settings that durability needs switched back on. All
data is in the bench's folder. They inherit the processor core of this process, which is the load's.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from itertools import count
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import psycopg

from bench.servers import tree_cpu_s
from tests.stores import mariadb, redis_servers
from tests.stores.cable import Cable
from tests.stores.postgres_server import PostgresServer

DURABLE = "fsync = on\nsynchronous_commit = on\nautovacuum_naptime = 1min\n"


class Engine(StrEnum):
    """Where records are."""

    NONE = "none"
    MEMORY = "memory"
    SQLITE = "sqlite"
    REDIS = "redis"
    POSTGRES = "postgres"
    MARIADB = "mariadb"


class Database(Protocol):
    """A place for the records of one measurement."""

    @property
    def url(self) -> str:
        """For the store."""

    def size_bytes(self) -> int:
        """What it takes, on disk or in memory, when no application has it open."""

    def count_trips(self) -> None:
        """From now on `trips` counts. To be called before an application has the URL."""

    def trips(self) -> int:
        """How many round trips there have been to the server so far."""

    def discard(self) -> None:
        """It is not needed any more."""


class NoServer:
    """Records in the application's process, or in a file of it."""

    def __init__(self, url: str, file: Path | None = None) -> None:
        self.url = url
        self._file = file

    def size_bytes(self) -> int:
        """The file, with its log."""
        assert self._file is not None, "nothing outlives the process"
        return sum(path.stat().st_size for path in self._file.parent.glob(f"{self._file.name}*"))

    def count_trips(self) -> None:
        """There is no server."""
        raise NotImplementedError

    def trips(self) -> int:
        """There is no server."""
        raise NotImplementedError

    def discard(self) -> None:
        """It goes with the folder."""


class RedisDatabase:
    """All of a Redis server."""

    def __init__(self, server: redis_servers.Server) -> None:
        self._server = server
        server.ask("FLUSHALL")
        self.url = f"redis://{server.address}/0"

    def size_bytes(self) -> int:
        """What its allocator has given out."""
        return int(self._info("memory")["used_memory"])

    def count_trips(self) -> None:
        """The server always does."""

    def trips(self) -> int:
        """Reads from the sockets of clients: however many commands come in one, it is one trip."""
        return int(self._info("stats")["total_reads_processed"])

    def discard(self) -> None:
        """It is emptied before it is used again."""

    def _info(self, section: str) -> dict[str, str]:
        with self._server.client() as client:
            found: dict[str, str] = client.info(section)
            return found


class PostgresDatabase:
    """A database of its own."""

    def __init__(self, server: PostgresServer, name: str) -> None:
        self._server, self._name = server, name
        self._administer(f"CREATE DATABASE {name}")
        self.url = server.url(name)

    def size_bytes(self) -> int:
        """The table of records with its indexes, after VACUUM has made what claims left behind usable again."""
        with self.connect() as connection:
            connection.execute("VACUUM retrysafe.records")
            row = connection.execute("SELECT pg_total_relation_size('retrysafe.records')").fetchone()
        assert row is not None
        return int(row[0])

    def count_trips(self) -> None:
        """Connections that are made from now on have their statements logged."""
        self._administer(f"ALTER DATABASE {self._name} SET log_statement = 'all'")

    def trips(self) -> int:
        """Statements in the server's log: each is sent, and waited for, by itself."""
        log = (self._server.folder.path / "log").read_text("utf-8", "replace")
        return len(re.findall(r"LOG:  (?:execute [^:]*|statement): ", log))

    def discard(self) -> None:
        """With all that is in it."""
        self._administer(f"DROP DATABASE {self._name} WITH (FORCE)")

    def connect(self) -> psycopg.Connection:
        """For statements past the store."""
        return self._server.connect(self._name)

    def _administer(self, statement: str) -> None:
        with self._server.connect("postgres") as connection:
            connection.execute(statement.encode())


class MariadbDatabase:
    """A database of its own."""

    def __init__(self, server: mariadb.Mariadb, name: str) -> None:
        self._server, self._name = server, name
        self._address = server.database(name)
        self._cable: Cable | None = None

    @property
    def url(self) -> str:
        """For the store; by way of the cable, if there is one."""
        login = f"{quote(self._address.user)}:{quote(self._address.password)}"
        port = self._cable.port if self._cable else self._address.port
        return f"mysql://{login}@{self._address.host}:{port}/{self._name}"

    def size_bytes(self) -> int:
        """Pages of its tables and indexes."""
        sizes = self._server.ask(
            "SELECT data_length + index_length FROM information_schema.tables WHERE table_schema = DATABASE()",
            self._name,
        )
        return int(sum(size for (size,) in sizes))

    def count_trips(self) -> None:
        """By a cable: the server's `Questions` counts each statement of a text, which goes as one question."""
        self._cable = Cable(self._address.port)

    def trips(self) -> int:
        """Questions that went through the cable, with however many statements each."""
        assert self._cable is not None, "nothing is counted"
        return int(self._cable.queries)

    def discard(self) -> None:
        """With all that is in it."""
        if self._cable:
            self._cable.close()
        self._server.ask(f"DROP DATABASE `{self._name}`")


class Engines:
    """Every server that was started, until `close`.

    Args:
        folder: for all data.
        slow_fsync: the shim to preload into those that are to be slow.

    Attributes:
        versions: of those that were started, by name.
    """

    def __init__(self, folder: Path, slow_fsync: Path) -> None:
        self._slow_fsync = slow_fsync
        self._numbers = count(1)
        self._servers: dict[tuple[Engine, bool], object] = {}
        self.versions: dict[str, str] = {}
        self._pids: list[Callable[[], int | None]] = []
        self._ends = ExitStack()
        self._folder = folder
        tempfile.tempdir = str(folder)  # the tests' servers put their data where temporary files go

    def database(self, engine: Engine, folder: Path, *, slow: bool) -> Database:
        """A new place for records. `folder` is the measurement's own; `slow` for 1 ms more in each fsync."""
        name = f"bench{next(self._numbers)}"
        match engine:
            case Engine.NONE | Engine.MEMORY:
                return NoServer("memory://")
            case Engine.SQLITE:
                return NoServer(f"sqlite:///{folder}/records.db", folder / "records.db")
            case Engine.REDIS:
                return RedisDatabase(self._redis())
            case Engine.POSTGRES:
                return PostgresDatabase(self._postgres(slow=slow), name)
            case Engine.MARIADB:
                return MariadbDatabase(self._mariadb(), name)

    def cpu_s(self) -> float:
        """Processor time that the servers have used so far."""
        return sum(tree_cpu_s(pid) for known in self._pids if (pid := known()))

    def close(self) -> None:
        """End every server."""
        self._ends.close()

    def _redis(self) -> redis_servers.Server:
        server = self._servers.get((Engine.REDIS, False))
        if server is None:
            server = redis_servers.Server(self._folder / "redis")
            with server.client() as client:
                self.versions["Redis"] = str(client.info("server")["redis_version"])
            self._keep(Engine.REDIS, server, lambda: _pid(server.process), server.stop)
        assert isinstance(server, redis_servers.Server)
        return server

    def _postgres(self, *, slow: bool) -> PostgresServer:
        server = self._servers.get((Engine.POSTGRES, slow))
        if server is None:
            with _preloaded(self._slow_fsync if slow else None):
                server = PostgresServer(DURABLE)
            with server.connect("postgres") as connection:
                self.versions["PostgreSQL"] = connection.info.parameter_status("server_version") or ""
            self._keep(Engine.POSTGRES, server, lambda: _pid(server.process), server.remove, slow=slow)
        assert isinstance(server, PostgresServer)
        return server

    def _mariadb(self) -> mariadb.Mariadb:
        server = self._servers.get((Engine.MARIADB, False))
        if server is None:
            server = mariadb.Mariadb()
            server.start()
            self.versions["MariaDB"] = str(server.ask("SELECT VERSION()")[0][0])
            self._keep(Engine.MARIADB, server, lambda: _pid(server._process), server.remove)  # noqa: SLF001 - its helper tells it to nobody else
        assert isinstance(server, mariadb.Mariadb)
        return server

    def _keep(
        self,
        engine: Engine,
        server: object,
        pid: Callable[[], int | None],
        end: Callable[[], object],
        *,
        slow: bool = False,
    ) -> None:
        self._servers[engine, slow] = server
        self._pids.append(pid)
        self._ends.callback(end)


def _pid(process: subprocess.Popen[bytes] | None) -> int | None:
    return process.pid if process else None


@contextmanager
def _preloaded(shim: Path | None) -> Iterator[None]:
    if shim is None:
        yield
        return
    os.environ["LD_PRELOAD"] = str(shim)
    try:
        yield
    finally:
        del os.environ["LD_PRELOAD"]
