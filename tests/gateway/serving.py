"""The gateway in a thread of the test's own process, and a client that writes and reads bytes."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import uvicorn
import uvloop

from retrysafe.gateway.app import _door, _server, _upstream
from retrysafe.gateway.config import GatewayConfig
from retrysafe.gateway.front import Front
from retrysafe.server.handling import Application
from retrysafe.stores.memory import MemoryStore
from tests.gateway.origin import Origin, Script, origin

_PATIENCE_S = 10
TEXT = {"Content-Type": "text/plain"}


def _end(server: uvicorn.Server) -> None:
    """Stop at once: tests of an orderly end, which takes uvicorn a while, have a process for it."""
    for listening in server.servers:
        listening.close()
    for connection in list(server.server_state.connections):
        connection.transport.abort()
    for task in server.server_state.tasks:
        task.cancel()


@contextmanager
def serving(application: Callable[[], AbstractAsyncContextManager[Application]]) -> Iterator[int]:
    """Serve an application as `retrysafe serve` would; the port is what the context gives."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    stop: list[Callable[[], object]] = []
    started = threading.Event()

    async def run() -> None:
        over = asyncio.Event()
        async with application() as served:
            server = _server(served)
            stop.append(partial(asyncio.get_running_loop().call_soon_threadsafe, over.set))
            server.config.load()
            server.lifespan = server.config.lifespan_class(server.config)
            await server.startup(sockets=[listener])
            started.set()
            await over.wait()
            _end(server)

    def main() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())

    thread = threading.Thread(target=main, daemon=True)
    thread.start()
    try:
        assert started.wait(_PATIENCE_S)
        yield listener.getsockname()[1]
    finally:
        for end in stop:
            end()
        thread.join(_PATIENCE_S)
        assert not thread.is_alive()


def configured(url: str, **settings: Any) -> GatewayConfig:
    """A configuration for tests."""
    return GatewayConfig(upstream=url, store="memory://", scope="header:X-Account-Id", **settings)


@contextmanager
def gateway(url: str, **settings: Any) -> Iterator[int]:
    """The whole gateway before an upstream, with records in memory."""
    config = configured(url, **settings)

    @asynccontextmanager
    async def application() -> AsyncIterator[Application]:
        async with _upstream(config) as upstream:
            door = _door(config, MemoryStore(), upstream)
            await door.open()
            yield Front(door, config.policy.problems_url)
            await door.close()

    with serving(application) as port:
        yield port


@contextmanager
def before(script: Script, **settings: Any) -> Iterator[tuple[Origin, int]]:
    """A gateway before a raw upstream."""
    with origin(script) as server, gateway(server.url, **settings) as port:
        yield server, port


@dataclass
class Answer:
    """What a client got."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    def value(self, name: str) -> str | None:
        """The first field line of that name."""
        return next((value for field, value in self.headers if field.lower() == name.lower()), None)

    def all(self, name: str) -> list[str]:
        """All field lines of that name."""
        return [value for field, value in self.headers if field.lower() == name.lower()]

    @property
    def json(self) -> Any:
        """The content."""
        return json.loads(self.body)


def call(port: int, method: str = "GET", target: str = "/", body: Any = None, /, **headers: str) -> Answer:
    """One request on a connection of its own. Underscores in names of headers become dashes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_S)
    try:
        connection.request(method, target, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return Answer(response.status, response.getheaders(), response.read())
    finally:
        connection.close()


def keyed(port: int, key: str, body: bytes = b"order", /, target: str = "/orders", **headers: str) -> Answer:
    """A POST with a key, for the account `me`."""
    fields = {"Content-Type": "text/plain", "X-Account-Id": "me", "Idempotency-Key": key, **headers}
    return call(port, "POST", target, body, **fields)


def converse(port: int, data: bytes, *, quiet_s: float = 0.3) -> tuple[bytes, bool]:
    """Write bytes and read what comes until it is quiet; what came, and whether the connection was closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S) as connection:
        connection.sendall(data)
        connection.settimeout(quiet_s)
        received = b""
        try:
            while piece := connection.recv(65_536):
                received += piece
        except TimeoutError:
            return received, False
        except ConnectionResetError:
            pass
        return received, True
