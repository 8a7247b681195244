"""What a handler has for an answer, as the response that is recorded. No framework is imported to recognise it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from retrysafe.errors import CallerError
from retrysafe.model import Headers, Response

_KINDS = "a response of Starlette, FastAPI, Django, Flask or werkzeug, a retrysafe.Response, or what JSON can say"
_BODILESS = frozenset({204, 205, 304})


def response_of(answer: Any, status: int, withheld: frozenset[bytes]) -> Response:
    """The response that an answer is.

    Args:
        answer: a response of a framework, or data for JSON.
        status: of an answer that is data.
        withheld: names of response fields, in lower case, that a handler may not set.

    Raises:
        CallerError: it is none, or its content is not known yet.
    """
    response = answer if isinstance(answer, Response) else _read(answer, status)
    headers = tuple((name, line) for name, line in response.headers if name.lower() not in withheld)
    if response.status not in _BODILESS and response.value(b"content-length") is None:
        headers += ((b"content-length", b"%d" % len(response.body)),)
    return Response(response.status, headers, response.body)


def _read(answer: Any, status: int) -> Response:
    if not hasattr(answer, "status_code"):
        return Response(status, ((b"content-type", b"application/json"),), _json(answer))
    return Response(int(answer.status_code), _headers(answer), _content(answer))


def _json(data: Any) -> bytes:
    try:
        return json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError):
        raise CallerError(
            f"complete_within was given a {type(data).__name__}, which JSON cannot say; give it {_KINDS}"
        ) from None


def _headers(answer: Any) -> Headers:
    if (raw := getattr(answer, "raw_headers", None)) is not None:  # Starlette
        return tuple((bytes(name), bytes(line)) for name, line in raw)
    lines: Iterable[tuple[str, str]] = answer.headers.items()  # of werkzeug each line, of Django each name
    cookies = getattr(answer, "cookies", None)  # Django keeps them apart
    set_cookies = [("Set-Cookie", morsel.OutputString()) for morsel in cookies.values()] if cookies else []
    return tuple((name.encode("latin-1"), line.encode("latin-1")) for name, line in [*lines, *set_cookies])


def _content(answer: Any) -> bytes:
    if callable(get_data := getattr(answer, "get_data", None)):  # werkzeug
        return bytes(get_data())
    content = None if getattr(answer, "streaming", False) else getattr(answer, "content", None)  # Django
    content = getattr(answer, "body", None) if content is None else content  # Starlette
    if not isinstance(content, bytes | bytearray | memoryview):
        raise CallerError(
            f"the content of this {type(answer).__name__} is not known before it is sent, so it cannot be recorded "
            "in a transaction; answer with a content that is there whole"
        )
    return bytes(content)
