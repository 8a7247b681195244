"""Where the records are: a file, or a real server that can be killed and started again on its data."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import quote


def _servers(module: str) -> Any:
    """The tests' helpers for one kind of server, which need its driver: imported when it is wanted."""
    return import_module(f"tests.stores.{module}")


class File:
    """SQLite: there is no server that could die."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder / 'records.db'}"

    def version(self) -> str:
        """Of the library."""
        return f"SQLite {sqlite3.sqlite_version}"

    def kill(self) -> None:
        """There is nothing to kill.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("SQLite has no server")

    def start(self) -> None:
        """It runs wherever it is used."""

    def remove(self) -> None:
        """It goes with its folder."""


class Postgres:
    """PostgreSQL; its death is an immediate stop, which leaves all to recovery."""

    def __init__(self, _: Path) -> None:
        self._server = _servers("postgres_server").PostgresServer()
        self.url = str(self._server.url())

    def version(self) -> str:
        """Of the server."""
        with self._server.connect() as connection:
            return f"PostgreSQL {connection.info.parameter_status('server_version')}"

    def kill(self) -> None:
        """Every process of it quits without writing anything."""
        self._server._end(signal.SIGQUIT)

    def start(self) -> None:
        """On the same data, which it recovers from its log."""
        self._server.start()

    def remove(self) -> None:
        """The server and its data."""
        self._server.remove()


class Mariadb:
    """MariaDB."""

    def __init__(self, _: Path) -> None:
        self._server = _servers("mariadb").Mariadb().start()
        address = self._server.database("proof")
        login = f"{quote(address.user)}:{quote(address.password)}"
        self.url = f"mysql://{login}@{address.host}:{address.port}/{address.database}"

    def version(self) -> str:
        """Of the server."""
        return f"MariaDB {self._server.ask('SELECT VERSION()')[0][0]}"

    def kill(self) -> None:
        """As `kill -9`."""
        self._server.stop(signal.SIGKILL)

    def start(self) -> None:
        """On the same data, which it recovers from its log."""
        self._server.start()

    def remove(self) -> None:
        """The server and its data."""
        self._server.remove()


class Redis:
    """Redis with a log that is on the disk before it answers, so that it forgets nothing when it dies."""

    def __init__(self, folder: Path) -> None:
        self._server = _servers("redis_servers").Server(folder / "redis", appendonly="yes", appendfsync="always")
        self.url = f"redis://{self._server.address}/0"

    def version(self) -> str:
        """Of the server."""
        with self._server.client() as client:
            return f"Redis {client.info('server')['redis_version']}"

    def kill(self) -> None:
        """As `kill -9`."""
        self._server.kill()

    def start(self) -> None:
        """On the same log."""
        self._server.start()

    def remove(self) -> None:
        """The server; its data goes with the folder."""
        self._server.stop()


Place = File | Postgres | Mariadb | Redis

PLACES: dict[str, Callable[[Path], Place]] = {
    "sqlite": File, "postgres": Postgres, "mariadb": Mariadb, "redis": Redis,
}  # fmt: skip


@contextmanager
def place(name: str, folder: Path) -> Iterator[Place]:
    """A place of that name for as long as the context lasts."""
    opened = PLACES[name](folder)
    try:
        yield opened
    finally:
        opened.remove()
