"""Runs a command again whenever it dies: `python -m tests.verify.supervised COMMAND...`. Ends on SIGTERM."""

from __future__ import annotations

import signal
import subprocess
import sys


def main(command: list[str]) -> None:
    """Run it until told to end."""
    running: list[subprocess.Popen[bytes]] = []

    def end(*_: object) -> None:
        running[-1].terminate()
        running[-1].wait()
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    while True:
        running.append(subprocess.Popen([sys.executable, "-m", *command]))
        running[-1].wait()


if __name__ == "__main__":
    main(sys.argv[1:])
