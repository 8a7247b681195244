"""DynamoDB as a process: moto's server on a free port of the loopback, which tests can put in trouble.

As a script it serves until its standard input ends, so it does not outlive the test that started it.
`python dynamodb_service.py [AHEAD_S]`: its clock is that many seconds ahead of this host's.

moto checks a condition and then writes, and something else may come in between; the service itself does
each request on one item as one step (docs: "conditional writes"). So requests are done one at a time here.
"""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

HOST = "127.0.0.1"
TROUBLE = "/trouble"

# How a request can go wrong. What is lost was applied.
LOST = "lost"
MUTE = "mute"  # done as ever, and a refusal leaves out the item that it is about
REFUSED = {
    "conflict": (400, "TransactionConflictException"),
    "throttled": (400, "ProvisionedThroughputExceededException"),
    "forbidden": (400, "AccessDeniedException"),
    "unknown client": (400, "UnrecognizedClientException"),
    "expired token": (400, "ExpiredTokenException"),
    "failed": (500, "InternalServerError"),
}


@dataclass(frozen=True)
class Service:
    """The service, as its tests see it."""

    url: str

    def trouble(self, kind: str, table: str, operations: Sequence[str] = (), times: int = 1_000_000) -> None:
        """From here on so many requests to a table go wrong; all operations if none is named. `times=0` ends it."""
        wish = {"kind": kind, "table": table, "operations": operations, "times": times}
        with urlopen(Request(self.url + TROUBLE, json.dumps(wish).encode(), method="POST")) as done:
            assert done.status == 200

    def empty(self, table: str) -> None:
        """A table of this service has no items any more; it need not be there yet. Sooner done than a new table."""
        with urlopen(Request(f"{self.url}{TROUBLE}?{table}", method="DELETE")) as done:
            assert done.status == 200

    def seen(self, table: str) -> list[str]:
        """The operations that were asked of a table, in order, also those that went wrong."""
        with urlopen(f"{self.url}{TROUBLE}?{table}") as answer:
            operations: list[str] = json.load(answer)
            return operations


@contextmanager
def running(ahead_s: int = 0) -> Iterator[Service]:
    """A service for as long as the context lasts."""
    command = [sys.executable, "-W", "ignore", str(Path(__file__)), str(ahead_s)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = process.stdout.readline().strip()  # it is there when the service listens; nothing if it died
        assert port.isdecimal(), "the service did not start"
        try:
            yield Service(f"http://{HOST}:{port}")
        finally:
            process.stdin.close()


class Troubled:
    """A WSGI application around the service, one request at a time."""

    def __init__(self, service):
        self._service = service
        self._lock = threading.Lock()
        self._troubles = {}
        self._seen = {}

    def __call__(self, environ, start_response):
        with self._lock:
            content = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            if environ["PATH_INFO"] == TROUBLE:
                return self._control(environ, content, start_response)
            operation = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
            table = json.loads(content or b"{}").get("TableName", "")
            self._seen.setdefault(table, []).append(operation)
            kind = self._kind(table, operation)
            if kind in REFUSED:
                return _refuse(*REFUSED[kind], start_response)
            if kind == MUTE:
                content = content.replace(b'"ReturnValuesOnConditionCheckFailure": "ALL_OLD"', b'"Muted": true')
                environ["CONTENT_LENGTH"] = str(len(content))
            environ["wsgi.input"] = io.BytesIO(content)
            answer = list(self._service(environ, start_response))
            if kind == LOST:
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return answer

    def _control(self, environ, content, start_response):
        answer = self._seen.get(environ["QUERY_STRING"], [])
        if environ["REQUEST_METHOD"] == "DELETE":
            _empty(environ["QUERY_STRING"])
        elif content:
            wish = json.loads(content)
            self._troubles[wish["table"]] = wish
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(answer).encode()]

    def _kind(self, table, operation):
        wish = self._troubles.get(table)
        if wish is None or not wish["times"] or (wish["operations"] and operation not in wish["operations"]):
            return ""
        wish["times"] -= 1
        return wish["kind"]


def _empty(table):
    from moto.dynamodb.models import dynamodb_backends  # noqa: PLC0415 only where it serves

    for _, _, backend in dynamodb_backends.iter_backends():
        tables = getattr(backend, "tables")  # noqa: B009 its type does not say that it has any
        if table in tables:
            tables[table].items.clear()


def _refuse(status, code, start_response):
    content = json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "in trouble"}).encode()
    start_response(f"{status} refused", [("Content-Type", "application/x-amz-json-1.0")])
    return [content]


def serve(ahead_s: int) -> None:
    """Serve until standard input ends."""
    import time  # noqa: PLC0415 as the next two: only where it serves

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app  # noqa: PLC0415 as above
    from werkzeug.serving import WSGIRequestHandler, make_server  # noqa: PLC0415 as above

    class Handler(WSGIRequestHandler):
        def date_time_string(self, timestamp=None):
            return super().date_time_string(time.time() + ahead_s)  # noqa: TID251 this is the service's own clock

        def log(self, type, message, *args):  # noqa: A002 the signature of the class above
            """Say nothing: every request would be a line."""

    application = Troubled(DomainDispatcherApplication(create_backend_app))
    server = make_server(HOST, 0, application, threaded=True, request_handler=Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
