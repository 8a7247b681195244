"""Runs the server of one strategy: `python -m retrysafe.lab.strategies.serve NAME PORT`, its databases in variables.

It says `ready PORT` when it is; the port 0 is any that is free.
"""

from __future__ import annotations

import socket
import sys

import uvicorn

from retrysafe.lab.strategies.catalogue import STRATEGIES
from retrysafe.lab.strategies.shop import Where

HOST = "127.0.0.1"


class _Server(uvicorn.Server):
    """One that says when it is ready."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if sockets and not self.should_exit:
            sys.stdout.write(f"ready {sockets[0].getsockname()[1]}\n")
            sys.stdout.flush()


def main(name: str, port: str) -> None:
    """Serve until SIGTERM."""
    listener = socket.create_server((HOST, int(port)), backlog=512)
    application = STRATEGIES[name].build(Where.of_environment())
    _Server(uvicorn.Config(application, lifespan="on", access_log=False, log_level="warning")).run([listener])


if __name__ == "__main__":
    main(*sys.argv[1:])
