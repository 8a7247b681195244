"""Real servers on loopback ports, and a client that sees every byte."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from retrysafe.demo.processes import HOST, Child, await_ready, free_port
from tests.doors.connections import Answer
from tests.forked import child

PATIENCE_S, MOMENT_S = 10, 2
SERVERS = ("uvicorn", "uvicorn with h11", "hypercorn", "granian")
BLOCKING_SERVERS = ("gunicorn", "gunicorn with threads", "waitress")


def command(server: str, port: int, application: str = "") -> Sequence[str]:
    """How a server is started. Those for ASGI have one process that serves; gunicorn has four of one thread, or one."""
    application = application or f"tests.doors.{'wsgi_apps' if server in BLOCKING_SERVERS else 'apps'}:application"
    match server:
        case "gunicorn":
            return ("gunicorn", application, "--bind", f"{HOST}:{port}", "--workers", "4", "--no-control-socket")
        case "gunicorn with threads":
            return (*command("gunicorn", port, application), "--workers", "1", "--threads", "32")
        case "waitress":
            return ("waitress", "--listen", f"{HOST}:{port}", "--threads", "32", application)
        case "uvicorn":
            return ("uvicorn", application, "--port", str(port), "--ws", "wsproto", "--timeout-graceful-shutdown", "1")
        case "uvicorn with h11":
            return (*command("uvicorn", port, application), "--http", "h11", "--loop", "asyncio")
        case "hypercorn":
            return ("hypercorn", application, "--bind", f"{HOST}:{port}", "--workers", "0", "--graceful-timeout", "1")
        case "granian":
            stop = ("--workers", "1", "--workers-kill-timeout", "2")
            return ("granian", application, "--interface", "asgi", "--port", str(port), *stop)
    raise AssertionError(server)


class Shop:
    """The application of `apps`, under a server.

    Args:
        process: of the server.
        place: the folder of its ledger and its gates.
    """

    def __init__(self, process: Child, place: Path) -> None:
        self.process = process
        self.port = process.port
        self.place = place

    def ledger(self, what: str, name: str) -> int:
        """How often this happened."""
        try:
            return (self.place / "ledger").read_text().splitlines().count(f"{what} {name}")
        except FileNotFoundError:
            return 0

    def until(self, what: str, name: str) -> None:
        """Wait until this has happened."""
        until(lambda: self.ledger(what, name))

    def until_logged(self, words: str) -> None:
        """Wait until the server has logged this."""
        until(lambda: words in self.process.log.read_text())

    def shut(self, gate: str) -> None:
        """Hold up whoever comes to this gate."""
        (self.place / gate).touch()

    def open(self, gate: str) -> None:
        """Let them go on."""
        (self.place / gate).unlink()

    def ask(self, target: str = "POST /told", **request: Any) -> Answer:
        """One request on a connection of its own, and its answer."""
        with connect(self.port) as connection:
            connection.send(request_bytes(target, **request))
            return connection.answer(target)

    def settled(self, target: str = "POST /told", **request: Any) -> Answer:
        """The answer of a retry, once the first attempt is no longer in progress."""
        answers = [self.ask(target, **request)]

        def settled() -> bool:
            if answers[-1].code == "in-progress":
                answers.append(self.ask(target, **request))
            return answers[-1].code != "in-progress"

        until(settled)
        return answers[-1]


@contextmanager
def serving(server: str, place: Path, **environment: str) -> Iterator[Shop]:
    """A server for as long as the context lasts."""
    port = free_port()
    log = server.replace(" ", "-")
    with child(log, command(server, port), port, place, {"SHOP_PLACE": str(place), **environment}) as process:
        await_ready(process, "/ready")
        yield Shop(process, place)


def until(condition: Callable[[], object]) -> None:
    """Wait for another process, in short steps and not for ever."""
    pause = threading.Event()
    for _ in range(PATIENCE_S * 200):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("it did not happen")


def request_bytes(
    target: str = "POST /told",
    *,
    key: str | None = None,
    account: str | None = "alice",
    fields: Sequence[tuple[str, str]] = (),
    chunked: bool = False,
    content: bytes | None = None,
    **wish: Any,
) -> bytes:
    """A request as it goes over the wire.

    Args:
        target: method, path and query.
        key: of the `Idempotency-Key` field.
        account: of the `X-Account` field.
        fields: further fields.
        chunked: send the content in chunks, without saying its length.
        content: what to send.
        wish: what the handler is told to do, if there is no content.
    """
    content = json.dumps(wish).encode() if content is None else content
    lines = [f"{target} HTTP/1.1", f"Host: {HOST}", "Content-Type: application/json"]
    lines += [f"Idempotency-Key: {key}"] if key is not None else []
    lines += [f"X-Account: {account}"] if account is not None else []
    lines += [f"{name}: {value}" for name, value in fields]
    lines += ["Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(content)}", "", ""]
    return "\r\n".join(lines).encode("latin-1") + (_chunks(content) if chunked else content)


def _chunks(content: bytes) -> bytes:
    pieces = [content[at : at + 1000] for at in range(0, len(content), 1000)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


class Wire:
    """One TCP connection to a server."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=PATIENCE_S)

    def send(self, content: bytes) -> None:
        """Send bytes; a server that refuses them may close while it is sent."""
        with suppress(ConnectionError):  # its answer may still be read
            self.socket.sendall(content)

    def received(self, wanted: bytes) -> bytes:
        """Read until these bytes have come."""
        seen = b""
        while wanted not in seen:
            piece = self.socket.recv(65_536)
            assert piece, seen
            seen += piece
        return seen

    def comes(self, wanted: bytes) -> bool:
        """Whether these bytes come within a moment."""
        self.socket.settimeout(MOMENT_S)
        try:
            self.received(wanted)
        except TimeoutError:
            return False
        finally:
            self.socket.settimeout(PATIENCE_S)
        return True

    def exactly(self, size: int) -> bytes:
        """Read so many bytes, and leave the next one unread."""
        seen = b""
        while len(seen) < size:
            piece = self.socket.recv(size - len(seen))
            assert piece, seen
            seen += piece
        return seen

    def is_silent(self) -> bool:
        """Whether nothing comes for a moment."""
        self.socket.settimeout(0.1)
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(PATIENCE_S)
        return False

    def so_far(self) -> bytes:
        """What came until it was silent for a moment."""
        self.socket.settimeout(0.1)
        seen = b""
        with suppress(TimeoutError):
            while piece := self.socket.recv(65_536):
                seen += piece
        self.socket.settimeout(PATIENCE_S)
        return seen

    def answer(self, target: str = "POST /") -> Answer:
        """Read an answer, to its end if it has one."""
        response = http.client.HTTPResponse(self.socket, method=target.partition(" ")[0])
        whole = True
        try:
            response.begin()
        except (ConnectionError, http.client.HTTPException):
            return Answer(0, (), b"", whole=False)
        try:
            body = response.read()
        except http.client.IncompleteRead as broken:
            body, whole = broken.partial, False
        except ConnectionError:
            body, whole = b"", False
        headers = tuple((name.lower().encode(), value.encode("latin-1")) for name, value in response.getheaders())
        return Answer(response.status, headers, body, whole)

    def reset(self) -> None:
        """Go away without a word, as a client does that is killed."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


@contextmanager
def connect(port: int) -> Iterator[Wire]:
    """A connection for as long as the context lasts."""
    wire = Wire(port)
    try:
        yield wire
    finally:
        wire.socket.close()
