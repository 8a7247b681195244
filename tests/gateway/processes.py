"""The gateway and an upstream with a ledger, each a process that can be killed."""

from __future__ import annotations

import errno
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import forked

_PATIENCE_S = 20
_POLL_S = 0.02
_SOURCE = Path(__file__).parents[2] / "src"


def until(holds: Callable[[], object], what: str) -> None:
    """Wait for a state, with a bound."""
    deadline_s = time.monotonic() + _PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline_s, f"not in {_PATIENCE_S} s: {what}"
        threading.Event().wait(_POLL_S)


def environment(**variables: str) -> dict[str, str]:
    """The environment of a child: ours, without settings that somebody may have in it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RETRYSAFE_")}
    return {**inherited, "PYTHONPATH": str(_SOURCE), **variables}


class Ledger:
    """The upstream and what it carried out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for pipe in ("before", "after"):
            if not (folder / pipe).exists():
                os.mkfifo(folder / pipe)
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("ledger.py"), folder], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"

    @property
    def orders(self) -> int:
        """How many orders were carried out, from the file itself."""
        with sqlite3.connect(self.folder / "ledger.db", timeout=10) as connection:
            try:
                (count,) = connection.execute("SELECT count(*) FROM orders").fetchone()
            except sqlite3.OperationalError:
                count = 0
        connection.close()
        return int(count)

    def arrival(self, pipe: str) -> int:
        """Wait until a request is held up at the pipe; closing what is returned lets it go on."""
        found: list[int] = []

        def somebody_waits() -> bool:
            try:
                found.append(os.open(self.folder / pipe, os.O_WRONLY | os.O_NONBLOCK))
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
            return bool(found)

        until(somebody_waits, f"a request held up {pipe} its effect")
        return found[0]

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Gateway:
    """`retrysafe serve` before a ledger, on a free port, with its records in a file."""

    def __init__(self, upstream: str, folder: Path, *options: str) -> None:
        self._log = folder / "gateway.log"
        command = ["retrysafe", "serve", "--upstream", upstream, "--listen", "127.0.0.1:0"]
        command += ["--store", f"sqlite:///{folder / 'records.db'}", "--scope", "header:X-Account-Id", *options]
        with self._log.open("wb") as log:
            self.process = forked.start(*command, stderr=log, cwd=folder, env=environment())
        until(lambda: b"retrysafe serves" in self._log.read_bytes() or self.process.poll() is not None, "the gateway")
        announced = re.search(r"retrysafe serves http://127\.0\.0\.1:([0-9]+)", self.log)
        assert announced is not None, self.log
        self.port = int(announced[1])

    @property
    def log(self) -> str:
        """What it said on standard error."""
        return self._log.read_text("utf-8")

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.process.kill()
        self.process.wait()

    def terminate(self) -> None:
        """Ask it to end."""
        self.process.send_signal(signal.SIGTERM)

    def ended(self) -> int:
        """Wait for its end; the exit code."""
        return self.process.wait(_PATIENCE_S)


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Do something meanwhile; the thread, and a list that will hold what came of it."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(work())
        except OSError as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, results
