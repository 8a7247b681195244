"""A raw upstream for tests: sockets and threads, no HTTP library, every byte it received kept."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_PATIENCE_S = 10


class Line:
    """One connection that the upstream accepted."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.received = b""
        self.heads: list[bytes] = []
        self._read = 0

    def _fill(self) -> bool:
        data = self.socket.recv(65_536)
        self.received += data
        return bool(data)

    def head(self) -> bytes:
        """The next head, with its empty line; empty at the end of the connection."""
        while (end := self.received.find(b"\r\n\r\n", self._read)) < 0:
            if not self._fill():
                return b""
        head, self._read = self.received[self._read : end + 4], end + 4
        self.heads.append(head)
        return head

    def take(self, count: int) -> bytes:
        """The next bytes; fewer at the end of the connection."""
        while len(self.received) < self._read + count and self._fill():
            pass
        taken = self.received[self._read : self._read + count]
        self._read += len(taken)
        return taken

    def line(self) -> bytes:
        """The next line, without its end."""
        while (end := self.received.find(b"\r\n", self._read)) < 0:
            if not self._fill():
                return b""
        line, self._read = self.received[self._read : end], end + 2
        return line

    def request(self) -> tuple[bytes, bytes]:
        """The next request: head and content. The head is empty at the end of the connection."""
        head = self.head()
        lower = head.lower()
        if b"\r\ntransfer-encoding: chunked\r\n" in lower:
            return head, b"".join(iter(self.chunk, b""))
        if b"\r\ncontent-length: " in lower:
            return head, self.take(int(lower.split(b"\r\ncontent-length: ")[1].split(b"\r\n")[0]))
        return head, b""

    def chunk(self) -> bytes:
        """The next chunk of a chunked content; empty at its end."""
        content = self.take(int(self.line() or b"0", 16))
        self.line()
        return content

    def send(self, data: bytes) -> None:
        """Write."""
        self.socket.sendall(data)

    def reset(self) -> None:
        """End the connection with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


Script = Callable[[Line], None]


def answering(answer: bytes) -> Script:
    """A script that answers every request with the same bytes."""

    def script(line: Line) -> None:
        while line.request()[0]:
            line.send(answer)

    return script


class Origin:
    """The upstream: what it accepted, and what it does with a connection."""

    def __init__(self, script: Script, port: int = 0, host: str = "127.0.0.1") -> None:
        self.script = script
        self.host = f"[{host}]" if ":" in host else host
        self.lines: list[Line] = []
        self._listener = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=64
        )
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{self.host}:{self.port}"

    @property
    def heads(self) -> list[bytes]:
        """The head of every request that came, with its empty line."""
        return [head for line in self.lines for head in line.heads]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(_PATIENCE_S)
            line = Line(connection)
            self.lines.append(line)
            thread = threading.Thread(target=self._serve, args=(line,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, line: Line) -> None:
        with suppress(OSError), line.socket:
            self.script(line)

    def close(self) -> None:
        """Refuse connections from now on, and end those that there are."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for line in self.lines:
            with suppress(OSError):
                line.socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_PATIENCE_S)


@contextmanager
def origin(script: Script) -> Iterator[Origin]:
    """An upstream for as long as the context lasts."""
    server = Origin(script)
    try:
        yield server
    finally:
        server.close()
