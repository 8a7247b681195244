"""A request as a WSGI server hands it over: its head, and its content. A WSGI environ is a mapping of strings.

What WSGI does not say: percent-escapes of the path are gone, so `%2F` and `/` are the same; and field lines of one name
have been joined with commas, so two accounts in one field look like one with a comma in its name.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from retrysafe.errors import ConfigurationError
from retrysafe.model import Body, BytesBody, Head, Request
from retrysafe.protocol.effects import Unread
from retrysafe.server.body import CHUNK_BYTES, Spool
from retrysafe.server.scope import ANONYMOUS, named_header

Environ = dict[str, Any]
Resolver = Callable[[Environ], str | None]

_PLAIN_FIELDS = {"CONTENT_TYPE": b"content-type", "CONTENT_LENGTH": b"content-length"}


def head_of(environ: Environ) -> Head:
    """The request before its content is read."""
    path = f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"
    return Head(
        environ["REQUEST_METHOD"].upper(),
        quote(path.encode("latin-1")).encode() or b"/",
        environ.get("QUERY_STRING", "").encode("latin-1"),
        tuple(_fields(environ)),
    )


def _fields(environ: Environ) -> Iterator[tuple[bytes, bytes]]:
    for name, value in environ.items():
        if name.startswith("HTTP_") and name not in ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"):
            yield name[5:].replace("_", "-").lower().encode("latin-1"), value.encode("latin-1")
        elif value and (field := _PLAIN_FIELDS.get(name)):
            yield field, value.encode("latin-1")


def path_of(environ: Environ) -> str:
    """The path within the application, decoded, as a router would match it."""
    path: str = environ.get("PATH_INFO", "")
    return path.encode("latin-1").decode("utf-8", "replace") or "/"


# --- content --------------------------------------------------------------------------------------


def read_request(environ: Environ, head: Head, body_bytes_max: int) -> Request | Unread:
    """The request with its whole content; nothing is read of one that says it is too large.

    Args:
        environ: of the request; its input is at the beginning.
        head: of the same request.
        body_bytes_max: how much content may be.
    """
    told = environ.get("CONTENT_LENGTH", "")
    length = int(told) if told.isdigit() else None
    if length is not None and length > body_bytes_max:
        return Unread.TOO_LARGE
    if length is None and not environ.get("wsgi.input_terminated"):
        return Request(head, BytesBody())  # PEP 3333: without a length there is nothing that may be read
    spool = Spool(body_bytes_max)
    try:
        _fill(spool, environ["wsgi.input"], length)
    except OSError:
        return Unread.CLIENT_GONE
    if spool.full:
        return Unread.TOO_LARGE
    if length is not None and spool.size < length:
        return Unread.CLIENT_GONE
    return Request(head, spool.body())


def _fill(spool: Spool, source: Any, length: int | None) -> None:
    while not spool.full and (length is None or spool.size < length):
        piece = source.read(CHUNK_BYTES if length is None else min(CHUNK_BYTES, length - spool.size))
        if not piece:
            return
        spool.add(piece)


def with_content(environ: Environ, body: Body, mark: str) -> Environ:
    """The environ for the handler, whose content is read again from its start.

    Args:
        environ: of the request.
        body: the content that was read.
        mark: name of an entry that says that the request is protected.
    """
    return {
        **environ,
        mark: True,
        "wsgi.input": reader_of(body),
        "wsgi.input_terminated": True,
        "CONTENT_LENGTH": str(body.size) if body.size or "CONTENT_LENGTH" in environ else "",
    }


def reader_of(body: Body) -> io.BufferedReader:
    """A content as a file that is read from its start."""
    return io.BufferedReader(_Input(body), CHUNK_BYTES)


class _Input(io.RawIOBase):
    """A content as a file that is only read."""

    def __init__(self, body: Body) -> None:
        self._chunks = body.chunks()
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._piece:
            piece = next(self._chunks, None)
            if piece is None:
                return 0
            self._piece = memoryview(piece)
        taken = self._piece[: len(buffer)]
        buffer[: len(taken)] = taken
        self._piece = self._piece[len(taken) :]
        return len(taken)


# --- whose key it is ------------------------------------------------------------------------------


def resolver(scope: str | Resolver) -> Resolver:
    """The function behind a scope setting.

    Args:
        scope: `"header:NAME"`, `"authorization"`, `"user"` (the server's `REMOTE_USER`), `"anonymous"`, or a
            function of the WSGI environ that returns the account, or None.

    Raises:
        ConfigurationError: it is none of these.
    """
    if callable(scope):
        return scope
    if scope == "authorization":
        return lambda environ: _one(environ.get("HTTP_AUTHORIZATION"), joined=True)
    if scope == "user":
        return lambda environ: environ.get("REMOTE_USER")
    if scope == ANONYMOUS:
        return lambda _: ANONYMOUS
    if isinstance(scope, str) and (name := named_header(scope)):
        entry = "HTTP_" + name.upper().replace("-", "_")
        return lambda environ: _one(environ.get(entry))
    raise ConfigurationError(
        [f'scope is {scope!r}; it must be "header:NAME", "authorization", "user", "anonymous" or a function']
    )


def _one(value: str | None, *, joined: bool = False) -> str | None:
    """The value of a field; None if it may be two, joined by the server: a proxy that appends must let neither through.

    Credentials contain commas by their own grammar, so there they are no sign of two.
    """
    if value is None or (not joined and "," in value):
        return None
    return value.strip()
