"""The application behind a test client, and what the client adds to every request.

Clients are known by what they are, not by importing them: a project has one framework installed, not all.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from retrysafe.errors import CallerError
from retrysafe.verify.message import Field, Fields

_ANY_CLIENT = frozenset(
    {"accept", "accept-encoding", "connection", "host", "user-agent", "content-length", "content-type"}
)
_CREDENTIALS = frozenset({"authorization", "cookie"})
_AUTHORITY = "testserver"


@dataclass(frozen=True, slots=True)
class Behind:
    """What is behind a client.

    Attributes:
        application: ASGI or WSGI.
        protocol: which of them.
        authority: what the application is to see as its host.
        fields: what the client sends with every request, and says not who it is.
        account: what of it says that.
        portal: of anyio, to the event loop in which the application was started; None if it was not.
        state: what its lifespan left for requests.
    """

    application: Any
    protocol: Literal["asgi", "wsgi"]
    authority: str = _AUTHORITY
    fields: Fields = ()
    account: Fields = ()
    portal: Any = None
    state: Mapping[str, Any] = field(default_factory=dict)


def behind(client: Any) -> Behind:
    """What is behind a client, or behind an application itself.

    Args:
        client: of Starlette or FastAPI, of httpx with an `ASGITransport` or a `WSGITransport`, of Django in either
            mode, of Flask; or an application.

    Raises:
        CallerError: it is none of these.
    """
    if _is_of(client, "django.test.client"):
        return _django(client)
    if _is_of(client, "werkzeug.test"):
        return _werkzeug(client)
    if hasattr(client, "cookies") and hasattr(client, "base_url"):
        return _httpx(client)
    return Behind(client, _protocol(client))


def _is_of(client: Any, module: str) -> bool:
    return any(kind.__module__ == module for kind in type(client).__mro__)


def _protocol(application: Any) -> Literal["asgi", "wsgi"]:
    """Which protocol an application speaks, by what it takes."""
    if not callable(application):
        raise CallerError(
            f"a {type(application).__name__} is no client that has an application behind it: give one of "
            "Starlette, FastAPI, Django or Flask, one of httpx with ASGITransport or WSGITransport, or the application"
        )
    function = application if inspect.isroutine(application) else application.__call__
    if inspect.iscoroutinefunction(function):
        return "asgi"
    try:
        inspect.signature(function).bind("environ", "start_response")
    except TypeError:
        return "asgi"
    return "wsgi"


def _httpx(client: Any) -> Behind:
    """A client of httpx or httpx2, or one that is made of it: Starlette's, FastAPI's, Litestar's."""
    application = getattr(client, "app", None) or getattr(client._transport, "app", None)  # noqa: SLF001 - no other way
    if application is None:
        raise CallerError(
            "this client goes over a network: give it an ASGITransport or a WSGITransport, or run `retrysafe verify`"
        )
    cookies = [(cookie.name, cookie.value or "") for cookie in client.cookies.jar]
    fields, account = _sorted(client.headers.multi_items(), cookies)
    authority = urlsplit(str(client.base_url)).netloc or _AUTHORITY
    state = getattr(client, "app_state", {})
    portal = getattr(client, "portal", None)
    return Behind(application, _protocol(application), authority, fields, account, portal, state)


def _django(client: Any) -> Behind:
    from retrysafe.django.behind import application_behind  # noqa: PLC0415 - only where Django is

    application = application_behind(client)
    cookies = [(name, morsel.value) for name, morsel in client.cookies.items()]
    fields, account = _sorted(_of_environ(client.defaults), cookies)
    return Behind(application, _protocol(application), _AUTHORITY, fields, account)


def _werkzeug(client: Any) -> Behind:
    """Flask's client, which is one of Werkzeug's."""
    kept = client._cookies or {}  # noqa: SLF001 - they are shown one by one only, by names that must be known
    fields, account = _sorted(
        _of_environ(getattr(client, "environ_base", {})), [(cookie.key, cookie.value) for cookie in kept.values()]
    )
    return Behind(client.application, _protocol(client.application), "localhost", fields, account)


def _of_environ(environ: Mapping[str, Any]) -> Iterable[Field]:
    """The header fields in defaults that are written as WSGI has them."""
    for name, value in environ.items():
        if name.startswith("HTTP_"):
            yield name.removeprefix("HTTP_").replace("_", "-").title(), str(value)


def _sorted(fields: Iterable[Field], cookies: Iterable[Field]) -> tuple[Fields, Fields]:
    """What the client sends besides what every client sends: what says not who it is, and what does."""
    sent = [each for each in fields if each[0].lower() not in _ANY_CLIENT]
    if pairs := "; ".join(f"{name}={value}" for name, value in cookies):
        sent = [each for each in sent if each[0].lower() != "cookie"]
        sent.append(("Cookie", pairs))
    return (
        tuple(each for each in sent if each[0].lower() not in _CREDENTIALS),
        tuple(each for each in sent if each[0].lower() in _CREDENTIALS),
    )
