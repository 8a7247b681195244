"""An upstream in a process of its own: every order it carries out is a row in its own SQLite file.

    python ledger.py FOLDER

It prints its port. With `X-Honour`, a POST under a key that it has carried out gets the first order and has no
effect, as APIs do that honour keys. A POST may say in `X-Hold` where it is held up: `before` its effect or `after` it,
until somebody has opened and closed the named pipe FOLDER/before or FOLDER/after.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER = Path(sys.argv[1])


def rows():
    """The ledger."""
    connection = sqlite3.connect(FOLDER / "ledger.db", timeout=10)
    connection.execute("CREATE TABLE IF NOT EXISTS orders (number INTEGER PRIMARY KEY, key TEXT, content BLOB)")
    return connection


class Orders(BaseHTTPRequestHandler):
    """Takes orders."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        """Carry out an order."""
        content = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.held("before")
        key = self.headers.get("Idempotency-Key")
        ledger = rows()
        with ledger:
            done = ledger.execute("SELECT number FROM orders WHERE key = ?", (key,)).fetchone()
            if done and self.headers.get("X-Honour"):
                (number,) = done
            else:
                order = "INSERT INTO orders (key, content) VALUES (?, ?)"
                number = ledger.execute(order, (key, content)).lastrowid
        ledger.close()
        self.held("after")
        self.answer(201, {"order": number})

    def do_GET(self):
        """Say how many orders were carried out; or, at /endless, send and send."""
        if self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                while True:
                    self.wfile.write(bytes(65_536))
            self.close_connection = True
            return
        ledger = rows()
        (count,) = ledger.execute("SELECT count(*) FROM orders").fetchone()
        ledger.close()
        self.answer(200, {"orders": count})

    def held(self, where):
        """Wait at a named pipe, if the request says so."""
        if self.headers.get("X-Hold") == where:
            (FOLDER / where).read_bytes()

    def answer(self, status, document):
        """Answer in JSON."""
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Say nothing."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Orders)
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()
