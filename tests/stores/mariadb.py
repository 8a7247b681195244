"""Real MariaDB servers for tests: data in a temporary folder, a free port, stopped at the end of the process."""

from __future__ import annotations

import atexit
import hashlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import pymysql

from retrysafe.stores.mysql import MysqlStore
from retrysafe.stores.mysql_server import Address
from tests.installed import installed

PATIENCE_S = 60
USER, PASSWORD = "tester", "not to be seen"


def _account():
    """Whom the server runs as: it refuses to be root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    return names.get("mysql") or names["nobody"]


class Mariadb:
    """A server with data of its own. `options` are those of the server's command line."""

    def __init__(self, *options):
        self._options = options
        self.folder = Path(tempfile.mkdtemp(prefix="retrysafe-mariadb-"))
        self._process = None
        account = _account()
        scratch = self.folder / "tmp"  # a server that starts clears its folder of what others have there, too
        scratch.mkdir()
        for folder in (self.folder, scratch):
            os.chown(folder, account.pw_uid, account.pw_gid)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = Address("127.0.0.1", self.port, USER, PASSWORD, "")
        self._common = ["--no-defaults", f"--user={account.pw_name}", f"--datadir={self.folder / 'data'}"]
        self._common += [f"--tmpdir={scratch}"]
        install = [installed("mariadb-server", "mariadb-install-db"), *self._common, "--skip-test-db"]
        done = subprocess.run(install, capture_output=True, text=True, check=False, cwd="/")
        assert done.returncode == 0, done.stdout + done.stderr
        self._first = self.folder / "first.sql"
        self._first.write_text(
            f"CREATE OR REPLACE USER '{USER}'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON *.* TO '{USER}'@'127.0.0.1' WITH GRANT OPTION;\n"
        )
        self._first.chmod(0o644)

    def start(self, *options, plain=True):
        """Start it, and wait until it answers; without TLS, unless it is not to be `plain`."""
        command = [installed("mariadb-server", "mariadbd"), *self._common, *self._options, *options]
        command += [f"--socket={self.folder / 'socket'}", f"--port={self.port}", "--bind-address=127.0.0.1"]
        command += ["--skip-name-resolve", f"--log-error={self.folder / 'log'}", f"--pid-file={self.folder / 'pid'}"]
        command += ["--innodb-buffer-pool-size=64M", "--innodb-log-file-size=32M", "--max-connections=400"]
        command += ["--innodb-flush-method=nosync"]  # what a killed process has written is there all the same
        command += [f"--init-file={self._first}"]
        self._process = subprocess.Popen(command, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        give_up_s = time.monotonic() + PATIENCE_S
        while not self._answers(plain):
            try:
                code = self._process.wait(0.05)
            except subprocess.TimeoutExpired:
                assert time.monotonic() < give_up_s, self._log()
            else:
                raise AssertionError(f"it ended with {code}: {self._log()}")
        return self

    def stop(self, how=signal.SIGTERM):
        """End it, in order or by force, and wait until it has ended."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE_S)
            self._process = None

    def remove(self):
        """Stop it and delete its data."""
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def connect(self, database=None, **options):
        """A connection past the store, which commits each statement unless told otherwise."""
        return pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            password=PASSWORD,
            database=database,
            **{"autocommit": True, "ssl_disabled": True} | options,  # to look for certificates takes its time
        )

    def ask(self, text, database=None):
        """The rows of one statement on a connection of its own."""
        connection = self.connect(database)
        cursor = connection.cursor()
        cursor.execute(text)
        rows = cursor.fetchall()
        connection.close()
        return rows

    def database(self, name):
        """The address of a database, which is made if it is not there."""
        self.ask(f"CREATE DATABASE IF NOT EXISTS `{name}`")
        return replace(self.address, database=name)

    def _answers(self, plain):
        try:
            self.connect(ssl_disabled=plain).close()
        except pymysql.OperationalError:
            return False
        return True

    def _log(self):
        return (self.folder / "log").read_text(errors="replace")[-2_000:]


@cache
def server():
    """The server that the tests of this process share."""
    started = Mariadb()
    atexit.register(started.remove)
    return started.start()


def address_of(folder):
    """The address of the database that belongs to a folder."""
    return server().database("t" + hashlib.sha256(bytes(folder)).hexdigest()[:24])


class ManualMysqlStore(MysqlStore):
    """A store whose clock is a row in its database, which is put to the test's time before each transition."""

    def __init__(self, clock, folder, port=None, **options):
        address = address_of(folder)
        super().__init__(
            replace(address, port=port or address.port), clock_sql="SELECT now_ms FROM test_clock", **options
        )
        self._clock = clock
        self._shown_ms = None
        self._moving = threading.Lock()
        self._hand = server().connect(address.database)
        self._hand.cursor().execute("CREATE TABLE IF NOT EXISTS test_clock (now_ms BIGINT NOT NULL)")
        self._hand.cursor().execute("INSERT INTO test_clock SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM test_clock)")

    def perform(self, transition):
        self._move()
        return super().perform(transition)

    def submit(self, transition):
        self._move()
        return super().submit(transition)

    def close(self):
        super().close()
        self._shown_ms = None

    def _move(self):
        with self._moving:
            if (now_ms := self._clock()) != self._shown_ms:
                self._hand.cursor().execute(f"UPDATE test_clock SET now_ms = {now_ms}")
                self._shown_ms = now_ms
