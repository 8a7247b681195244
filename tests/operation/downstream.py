"""The other side: an HTTP service on a free loopback port, with a ledger in a file, that may die on nobody's behalf.

`/charge` does it, and writes a line `NAME KEY` into the ledger. Under `/dedup/charge` it does so once for each key, and
answers a repeated key as the first time. `/find` says what was done under a key.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Do it, or find what was done."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        key = self.headers["Idempotency-Key"]
        self._answer(self.server.find(key) if self.path == "/find" else self.server.charge(self.path, key, body))

    def _answer(self, document: Any) -> None:
        content = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the signature of the base
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, ledger: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.ledger = ledger
        self._done: dict[str, Any] = {}
        self._lock = threading.Lock()

    def charge(self, path: str, key: str, body: bytes) -> Any:
        with self._lock:
            if path.startswith("/dedup") and key in self._done:
                return self._done[key]
            with self.ledger.open("a") as ledger:
                ledger.write(f"{json.loads(body)['what']} {key}\n")
            self._done[key] = {"number": len(self.ledger.read_text().splitlines())}
            return self._done[key]

    def find(self, key: str) -> Any:
        with self._lock:
            return self._done.get(key)


class Downstream:
    """The service, as the tests see it.

    Attributes:
        port: where it listens.
    """

    def __init__(self, server: _Server) -> None:
        self._server = server
        self.port: int = server.server_address[1]

    def effects(self, what: str) -> list[str]:
        """The keys that this was done under, in order."""
        try:
            lines = self._server.ledger.read_text().splitlines()
        except FileNotFoundError:
            return []
        return [line.partition(" ")[2] for line in lines if line.partition(" ")[0] == what]


@contextmanager
def downstream(place: Path) -> Iterator[Downstream]:
    """The service for as long as the context lasts."""
    server = _Server(place / "downstream-ledger")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield Downstream(server)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
