"""A network in the hand of a test: a real server behind it, and faults at the byte where they are wanted."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CHUNK = 65_536


class Proxy:
    """Passes connections on to a server, until it is told to misbehave.

    Args:
        port: of the server.
        tls: with what it speaks TLS to those who connect; None for a connection in the clear.
    """

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._target = port
        self._tls = tls
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._reply_bytes_max: int | None = None
        self._refusing = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def cut_replies_after(self, reply_bytes: int) -> None:
        """The server gets what comes from now on; of its replies so many bytes arrive, and then the connection ends."""
        with self._lock:
            self._reply_bytes_max = reply_bytes

    def heal(self) -> None:
        """New connections are whole again."""
        with self._lock:
            self._reply_bytes_max = None
            self._refusing = False

    def refuse(self) -> None:
        """Every connection ends, and so does each new one as soon as it is there."""
        with self._lock:
            self._refusing = True
        self.cut()

    def cut(self) -> None:
        """End every connection."""
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for one in sockets:
            _end(one)

    def close(self) -> None:
        """End everything."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)

    def _start(self, run, *arguments) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        try:
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            server = socket.create_connection(("127.0.0.1", self._target))
        except OSError:  # an SSLError is one: whoever came did not like the certificate
            client.close()
            return
        with self._lock:
            self._sockets |= {client, server}
            refusing = self._refusing
        if refusing:
            _end(client)
        self._start(self._pass_on, client, server)
        self._answer(server, client)

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(_CHUNK):
                sink.sendall(data)
        _end(source)
        _end(sink)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(_CHUNK):
                with self._lock:
                    allowed = self._reply_bytes_max
                    if allowed is not None:
                        self._reply_bytes_max = max(0, allowed - len(data))
                client.sendall(data[:allowed])
                if allowed is not None and len(data) >= allowed:
                    break
        _end(server)
        _end(client)
        client.close()
        server.close()


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxy(port: int, tls: ssl.SSLContext | None = None) -> Iterator[Proxy]:
    """A proxy for as long as it is needed."""
    one = Proxy(port, tls)
    try:
        yield one
    finally:
        one.close()
