"""A server of the laboratory in a thread of its own, and the command line run against it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from click.testing import CliRunner, Result

from retrysafe.cli import main
from retrysafe.lab.mutants.correct import Server
from retrysafe.lab.mutants.serving import serving as in_loop

PATIENCE_S = 20
CONTENT = '{"reference":"{{unique}}","item":"tea","quantity":1}'
ALICE = ("--account", "Authorization: Bearer alice")
COUNTED = ("--effects", "GET /orders?reference={{unique}} $.total")


@contextmanager
def serving(server: Server, tls: tuple[str, str] | None = None) -> Iterator[str]:
    """Its address, for as long as the context lasts; over TLS with the files of a certificate."""
    started, over = threading.Event(), threading.Event()
    address: list[str] = []

    async def run() -> None:
        async with in_loop(server, tls=tls) as addresses:
            address.extend(addresses)
            started.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    try:
        assert started.wait(PATIENCE_S)
        yield address[0]
    finally:
        over.set()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def verify(*arguments: str) -> Result:
    """`retrysafe verify` with these arguments."""
    return CliRunner().invoke(main, ["verify", *arguments])
