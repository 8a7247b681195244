"""An adapter for sessions of requests: `session.mount("https://api.example.com", IdempotencyAdapter("stripe-v1"))`."""

from __future__ import annotations

from typing import Any

import requests
from requests import exceptions
from requests.adapters import HTTPAdapter
from urllib3.exceptions import NewConnectionError

from retrysafe.client.attempt import Failure, Reply
from retrysafe.client.entry import Asked
from retrysafe.client.protection import NOTE, Call, Protection, conclude, is_broken_off, is_hopeless, is_read_whole
from retrysafe.client.resume import Carrier

_TIMEOUT_S = 60.0  # of what is resumed: a session has none of its own
_BROKEN_OFF = "the answer broke off within its head"
_MENDABLE = (
    exceptions.ConnectionError, exceptions.Timeout, exceptions.ChunkedEncodingError, exceptions.ContentDecodingError
)  # fmt: skip


class IdempotencyAdapter(HTTPAdapter):
    """One key for each operation, kept over every attempt; urllib3 below tries nothing again.

    Args:
        profile: how the server takes keys: a name such as `"retrysafe"`, `"stripe-v1"` or `"ietf"`, or a `Profile`.
        settings: `origins`, `schedule`, `budget` and `journal`, as `Protection` has them.
        pool: `pool_connections`, `pool_maxsize` and `pool_block`, as `HTTPAdapter` has them.

    Raises:
        ConfigurationError: there is no such profile, or an origin is none.
    """

    def __init__(self, profile: Any, *, pool: dict[str, Any] | None = None, **settings: Any) -> None:
        super().__init__(max_retries=0, **(pool or {}))  # trying again happens at one layer only (contract R93)
        self._protection = Protection(profile, **settings)

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        """One call of the session's, to its last attempt."""
        call = self._call_of(request)
        if call is None:
            return super().send(request, *args, **options)
        request.body = content = _content(request)
        vars(request)["_body_position"] = None  # or the session would rewind what is bytes now, for a redirect
        if "Transfer-Encoding" in request.headers:  # its content was a stream, and was read
            del request.headers["Transfer-Encoding"]
            request.headers["Content-Length"] = str(len(content))
        seen: list[Any] = [None, None]

        def attempt(call: Call) -> Reply:
            sent = request.copy()
            sent.headers[self._protection.profile.header] = call.key
            try:
                response = super(IdempotencyAdapter, self).send(sent, *args, **options)
                return self._answered(response, seen)
            except _MENDABLE as failure:
                if is_hopeless(failure):
                    raise
                seen[:] = [None, failure]
                return Failure(sent=not _never_left(failure))

        asked = self._protection.asked(request.method or "", request.url or "", _texts(request).items(), content)
        call, ended = self._protection.perform(call, asked, attempt)
        request.hooks = {**request.hooks, NOTE: [call]}  # what a redirected request inherits
        return conclude(ended, *seen)  # type: ignore[no-any-return] # what was put there

    def _call_of(self, request: requests.PreparedRequest) -> Call | None:
        header = self._protection.profile.header
        before = request.hooks.get(NOTE, [None])[0]
        call = self._protection.call_of(request.method or "", request.url or "", _texts(request), before)
        if call is None and before is not None:  # it was redirected to another origin
            request.headers.pop(header, None)
        return call

    def _answered(self, response: requests.Response, seen: list[Any]) -> Reply:
        if is_broken_off(response.status_code, response.headers, response.raw.version):
            response.close()
            raise exceptions.ConnectionError(_BROKEN_OFF)
        content = response.content if is_read_whole(response.status_code, response.headers) else b""
        seen[:] = [response, None]
        return self._protection.reply(response.status_code, response.headers, content)


def _texts(request: requests.PreparedRequest) -> requests.structures.CaseInsensitiveDict[str]:
    texts = {
        name: line.decode("latin-1") if isinstance(line, bytes) else line for name, line in request.headers.items()
    }
    return requests.structures.CaseInsensitiveDict(texts)


def _content(request: requests.PreparedRequest) -> bytes:
    """The whole content, of a file or a generator too: every attempt sends the same bytes."""
    body: Any = request.body
    if body is None or isinstance(body, (bytes, str)):
        return body.encode() if isinstance(body, str) else body or b""
    if hasattr(body, "read"):
        body = body.read()
        return body.encode() if isinstance(body, str) else bytes(body)
    return b"".join(piece.encode() if isinstance(piece, str) else bytes(piece) for piece in body)


def _never_left(failure: Exception) -> bool:
    """Whether there was no connection that a request could have gone out on."""
    reason = getattr(failure.args[0] if failure.args else None, "reason", None)
    return isinstance(failure, exceptions.ConnectTimeout) or isinstance(reason, NewConnectionError)


def _send_again(session: requests.Session, asked: Asked) -> requests.Response:
    """A request past the session's own parameters, which its URL has already."""
    headers = requests.structures.CaseInsensitiveDict({**session.headers})
    headers.update(dict(asked.headers))
    request = requests.Request(
        asked.method, asked.url, headers=headers, data=asked.content, auth=session.auth, cookies=session.cookies
    )
    settings = session.merge_environment_settings(asked.url, {}, None, None, None)
    return session.send(request.prepare(), timeout=_TIMEOUT_S, **settings)


def _read(response: requests.Response) -> tuple[int, bytes]:
    return response.status_code, response.content


resume = Carrier(_send_again, _read).resume
