"""A pool manager of urllib3 that keeps one key for each operation, over every attempt."""

from __future__ import annotations

from typing import Any
from urllib.parse import urljoin

import urllib3
from urllib3 import exceptions

from retrysafe.client.attempt import Failure, Reply
from retrysafe.client.entry import Asked
from retrysafe.client.protection import Call, Protection, conclude, is_broken_off, is_hopeless, is_read_whole, origin_of
from retrysafe.client.resume import Carrier
from retrysafe.errors import CallerError

_ONCE: dict[str, Any] = {
    "total": None, "connect": False, "read": False, "status": 0, "other": 0, "redirect": 10,
    "raise_on_redirect": False, "respect_retry_after_header": False,
}  # fmt: skip
_TIMEOUT_S = 60.0  # of what is resumed: a pool manager has none of its own
_NEVER_LEFT = (exceptions.NewConnectionError, exceptions.ConnectTimeoutError)
_MENDABLE = (exceptions.ProtocolError, exceptions.TimeoutError, exceptions.NewConnectionError, exceptions.SSLError)


class _Redirects(urllib3.Retry):
    """Follows redirects and tries nothing again: that happens at one layer only (contract R93)."""


class _WithinOrigin(_Redirects):
    """Hands back a redirect to another origin: what is sent there has no key, and must not be sent twice."""

    def increment(self, method: Any = None, url: Any = None, response: Any = None, *args: Any, **options: Any) -> Any:
        """One redirect more, or the end."""
        location = response.get_redirect_location() if response is not None else None
        if location and origin_of(urljoin(url, location)) != origin_of(url):
            raise exceptions.MaxRetryError(options["_pool"], url)
        return super().increment(method, url, response, *args, **options)


class IdempotencyPoolManager(urllib3.PoolManager):
    """A `urllib3.PoolManager`: `IdempotencyPoolManager("stripe-v1").request("POST", url, json=...)`.

    Args:
        profile: how the server takes keys: a name such as `"retrysafe"`, `"stripe-v1"` or `"ietf"`, or a `Profile`.
        settings: `origins`, `schedule`, `budget` and `journal`, as `Protection` has them.
        pool: what `urllib3.PoolManager` is made with, `{"num_pools": 4}` say.

    Raises:
        ConfigurationError: there is no such profile, or an origin is none.
    """

    def __init__(self, profile: Any, *, pool: dict[str, Any] | None = None, **settings: Any) -> None:
        super().__init__(**(pool or {}))
        self._protection = Protection(profile, **settings)

    def urlopen(self, method: str, url: str, redirect: bool = True, **options: Any) -> urllib3.BaseHTTPResponse:  # type: ignore[override] # noqa: FBT002 - the library's own signature
        """One call, to its last attempt.

        Raises:
            CallerError: `retries` asks for a second layer that tries again.
        """
        if isinstance(options.get("retries"), _Redirects):  # from inside of a call
            return super().urlopen(method, url, redirect, **options)
        headers = urllib3.HTTPHeaderDict(self.headers if options.get("headers") is None else options["headers"])
        call = self._protection.call_of(method, url, headers)
        if call is None:
            return super().urlopen(method, url, redirect, **options)
        if options.pop("retries", None) not in (None, False, 0):
            raise CallerError("retries= is not for calls under a key: they are tried again as the schedule says")
        content = _content(options.pop("body", None))
        preload = options.pop("preload_content", True)
        seen: list[Any] = [None, None]

        def attempt(call: Call) -> Reply:
            once = {
                **options,
                "headers": self._with_key(headers, call),
                "retries": _WithinOrigin(**_ONCE),
                "body": content,
            }
            try:
                response = super(IdempotencyPoolManager, self).urlopen(
                    method, url, redirect, preload_content=False, **once
                )
                return self._answered(response, seen, preload=preload)
            except exceptions.HTTPError as failure:
                reason = failure.reason if isinstance(failure, exceptions.MaxRetryError) else failure
                if not isinstance(reason, _MENDABLE) or is_hopeless(failure):
                    raise
                seen[:] = [None, failure]
                return Failure(sent=not isinstance(reason, _NEVER_LEFT))

        asked = self._protection.asked(method, url, headers.items(), content)
        response = conclude(self._protection.perform(call, asked, attempt)[1], *seen)
        return self._elsewhere(response, asked, options) if redirect else response  # type: ignore[no-any-return] # as seen

    def _with_key(self, headers: urllib3.HTTPHeaderDict, call: Call) -> urllib3.HTTPHeaderDict:
        once = headers.copy()
        once[self._protection.profile.header] = call.key
        return once

    def _elsewhere(self, response: Any, asked: Asked, options: dict[str, Any]) -> Any:
        """What the answer is, if it is a redirect to another origin: followed, once, without key and credentials."""
        location = response.get_redirect_location()
        if not location:
            return response
        dropped = {name.lower() for name in urllib3.Retry.DEFAULT_REMOVE_HEADERS_ON_REDIRECT}
        headers = urllib3.HTTPHeaderDict([field for field in asked.headers if field[0].lower() not in dropped])
        method, body = asked.method, asked.content or None
        if response.status == 303:
            method, body, headers = "GET", None, headers._prepare_for_method_change()  # noqa: SLF001 - as the library
        once = {**options, "headers": headers, "body": body, "retries": _Redirects(**_ONCE)}
        return super().urlopen(method, urljoin(urljoin(asked.url, response.url or ""), location), **once)

    def _answered(self, response: urllib3.BaseHTTPResponse, seen: list[Any], *, preload: bool) -> Reply:
        if is_broken_off(response.status, response.headers, response.version):
            response.close()
            raise exceptions.ProtocolError("the answer broke off within its head")
        whole = is_read_whole(response.status, response.headers)
        content = response.data if whole or preload else b""
        seen[:] = [response, None]
        return self._protection.reply(response.status, response.headers, content)


def _content(body: Any) -> bytes:
    """The whole content, of a file or an iterable too: every attempt sends the same bytes."""
    if hasattr(body, "read"):
        body = body.read()
    if body is None or isinstance(body, (bytes, bytearray, memoryview, str)):
        return body.encode() if isinstance(body, str) else bytes(body or b"")
    return b"".join(piece.encode() if isinstance(piece, str) else bytes(piece) for piece in body)


def _send_again(pool: IdempotencyPoolManager, asked: Asked) -> urllib3.BaseHTTPResponse:
    headers = urllib3.HTTPHeaderDict(pool.headers)
    headers.update(dict(asked.headers))
    return pool.urlopen(asked.method, asked.url, headers=headers, body=asked.content, timeout=_TIMEOUT_S)


def _read(response: urllib3.BaseHTTPResponse) -> tuple[int, bytes]:
    return response.status, response.data


resume = Carrier(_send_again, _read).resume
