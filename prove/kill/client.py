"""A client that sees every byte, and never waits for one of them alone: whom it asked may be standing still."""

from __future__ import annotations

import http.client
import io
import json
import select
import socket
import time
from dataclasses import replace

from prove.kill.handlers import digest
from prove.kill.orders import PATH, SCOPE
from retrysafe.lab.evidence import Call

_READ_BYTES = 1 << 16
_LOOK_S = 0.1
_OUR_HEADERS = ("content-type", "x-order")


class Asked:
    """One request, on a connection of its own.

    Args:
        port: where the server listens.
        call: what is to be noted of it: its number, its key, whom it was sent to.
        content: of the request.
    """

    def __init__(self, port: int, call: Call, content: bytes) -> None:
        self._content = b""
        self._socket: socket.socket | None = None
        self._call = replace(call, invoked_ns=time.monotonic_ns(), fingerprint=digest(content))
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\nX-Account: {SCOPE}\r\nX-Call: {call.id}\r\n"
            f'Idempotency-Key: "{call.key}"\r\n\r\n'
        )
        try:
            self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
            self._socket.sendall(head.encode() + content)
            self._socket.settimeout(0)
        except OSError:
            self.close()

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self._socket is None

    def look(self, patience_s: float, *others: socket.socket) -> list[socket.socket]:
        """Take what has come; wait for it, or for one of the others, at most so long. Which of the others is ready."""
        wanted = [one for one in (self._socket, *others) if one is not None]
        ready, _, _ = select.select(wanted, [], [], patience_s)
        if self._socket is not None and self._socket in ready:
            self._read(self._socket)
        return [one for one in others if one in ready]

    def _read(self, connection: socket.socket) -> None:
        try:
            content = connection.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            content = b""
        self._content += content
        if not content:
            self.close()

    def close(self) -> None:
        """Hang up: nothing more will come."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._call = _with_answer(self._call, self._content)

    def answered(self, patience_s: float) -> Call:
        """Wait for all that comes; the request and its answer.

        Raises:
            TimeoutError: there is no end.
        """
        deadline_s = time.monotonic() + patience_s
        while not self.over:
            self.look(_LOOK_S)
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"no answer in {patience_s} s")
        return self._call

    def call(self) -> Call:
        """The request and its answer, as far as it came."""
        return self._call


def _with_answer(call: Call, content: bytes) -> Call:
    """What the client knows: nothing, unless the answer is whole."""
    response = http.client.HTTPResponse(_Received(content))  # type: ignore[arg-type]  # it asks for a file, and nothing else
    try:
        response.begin()
        body = response.read()
    except (OSError, http.client.HTTPException):
        return call
    code, canaries = _said(response, body)
    return replace(
        call,
        returned_ns=time.monotonic_ns(),
        status=response.status,
        code=code,
        body=digest(body),
        headers=digest(repr([response.getheader(name) for name in _OUR_HEADERS]).encode()),
        replayed=response.getheader("Idempotent-Replayed") == "true",
        unrecorded=response.getheader("Idempotency-Status") == "unrecorded",
        canaries=canaries,
    )


def _said(response: http.client.HTTPResponse, body: bytes) -> tuple[str, tuple[str, ...]]:
    """The code of a problem, and the accounts whose data is in the content.

    A failure of the handler that says that nothing was done is no outcome: it is told apart.
    """
    document = json.loads(body) if body.startswith(b"{") else {}
    if response.getheader("Content-Type") == "application/problem+json":
        code = str(document["code"])
        return f"{code}, without effect" if code == "handler-failed" and document.get("retryable") else code, ()
    return "", (str(document["scope"]),) if "scope" in document else ()


class _Received:
    """What `http.client` reads a response from: bytes that have come already."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def makefile(self, _: str) -> io.BytesIO:
        """As of a socket."""
        return io.BytesIO(self._content)
