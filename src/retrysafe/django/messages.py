"""Requests and responses of Django's, as the engine has them, and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.core.signals import got_request_exception
from django.http import HttpResponse, StreamingHttpResponse

from retrysafe.errors import CallerError
from retrysafe.model import BytesBody, Head, Headers, Request, Response
from retrysafe.protocol.effects import Unread
from retrysafe.server.body import CHUNK_BYTES, Spool
from retrysafe.server.capture import Capture, Message
from retrysafe.server.environ import head_of as head_of_environ
from retrysafe.server.environ import reader_of
from retrysafe.server.exchange import head_of as head_of_connection
from retrysafe.server.length import number_in

# On a request that a middleware of ours protects: one is enough.
PROTECTED = "retrysafe_protected"

# --- requests -------------------------------------------------------------------------------------


def head_of(request: Any) -> Head:
    """A request before its content is read."""
    return head_of_connection(request.scope) if hasattr(request, "scope") else head_of_environ(request.environ)


def length_of(head: Head) -> int | None:
    """How much content it says it has; None if it does not."""
    told = head.values(b"content-length")
    return number_in(told[0]) if told else None


def read_request(request: Any, head: Head, body_bytes_max: int) -> Request | Unread:
    """The request with its whole content, which views read from its beginning afterwards.

    Nothing is read of one that says it is too large.

    Raises:
        CallerError: somebody else has read it.
    """
    length = length_of(head)
    if length is not None and length > body_bytes_max:
        return Unread.TOO_LARGE
    if hasattr(request, "_body"):  # middleware further out has read it whole, by `request.body`
        content = request.body
        return Request(head, BytesBody(content)) if len(content) <= body_bytes_max else Unread.TOO_LARGE
    if request._read_started:  # noqa: SLF001 - nothing public says so
        raise CallerError(
            "middleware before retrysafe's has read the content of the request as a stream; put it behind retrysafe's"
        )
    spool = Spool(body_bytes_max)
    try:
        while not spool.full and (piece := request.read(CHUNK_BYTES)):
            spool.add(piece)
    except OSError:
        return Unread.CLIENT_GONE
    if spool.full:
        return Unread.TOO_LARGE
    if length is not None and spool.size < length:
        return Unread.CLIENT_GONE
    body = spool.body()
    # As Django itself does it once a content was read; there is no public way to give it back.
    request._stream, request._read_started = reader_of(body), False  # noqa: SLF001 - as above
    return Request(head, body)


_FAILED = "retrysafe_failed"


def _note_failure(request: Any = None, **_: Any) -> None:
    if request is not None:
        setattr(request, _FAILED, True)


# The one thing that tells an exception, of which Django has made a response, from a 500 that a view answered.
got_request_exception.connect(_note_failure, dispatch_uid=_FAILED)


def has_failed(request: Any) -> bool:
    """Whether what answered it was an exception that nobody handled."""
    return getattr(request, _FAILED, False)


# --- responses ------------------------------------------------------------------------------------


def start_of(response: Any) -> Message:
    """The head of a response, as the message that starts it."""
    lines = [*response.items(), *(("Set-Cookie", morsel.OutputString()) for morsel in response.cookies.values())]
    fields = [(_bytes(name), _bytes(line)) for name, line in lines]
    return {"type": "http.response.start", "status": response.status_code, "headers": fields}


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")


def piece_of(content: bytes, *, more: bool) -> Message:
    """A piece of content, as a message."""
    return {"type": "http.response.body", "body": content, "more_body": more}


def contents(messages: Iterable[Message]) -> bytes:
    """The content of some messages."""
    return b"".join(message["body"] for message in messages if message["type"] == "http.response.body")


def capture_whole(capture: Capture, response: Any) -> None:
    """Take a response whose content is there."""
    capture.start(start_of(response))
    capture.piece(piece_of(response.content, more=False))


def respond(response: Response) -> HttpResponse:
    """A response of the engine's, as one of Django's."""
    made = HttpResponse(response.body, status=response.status)
    del made["Content-Type"]
    for name, line in response.headers:
        text, value = name.decode("latin-1"), line.decode("latin-1")
        if name.lower() == b"set-cookie":
            made.cookies.load(value)
        else:
            made[text] = f"{made[text]}, {value}" if text in made else value
    return made


def vanished() -> HttpResponse:
    """There is nobody to answer; the server has to hear something."""
    return HttpResponse(status=400)


def marked(response: Any, withheld: frozenset[bytes], added: Headers = ()) -> Any:
    """A handler's own response as it goes out: without what is ours to say, and with it."""
    for name in withheld:
        del response[name.decode("latin-1")]
    for name, line in added:
        response[name.decode("latin-1")] = line.decode("latin-1")
    return response


def with_content(response: Any, content: Any) -> StreamingHttpResponse:
    """The same response with another content, which is made as it is sent. What it held open stays open."""
    made = StreamingHttpResponse(content, status=response.status_code, reason=response.reason_phrase)
    made.headers, made.cookies = response.headers, response.cookies
    return made


def close(response: Any) -> None:
    """Let go of what a response held open, without telling Django that the request is over."""
    for closer in response._resource_closers:  # noqa: SLF001 - `close` would tell
        closer()
