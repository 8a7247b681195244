"""Whose key it is: from a request of Django's to the account (contract part B)."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.apps import apps
from django.urls import Resolver404, resolve

from retrysafe.errors import CallerError, ConfigurationError
from retrysafe.server import environ, scope

Resolver = Callable[[Any], str | None | Awaitable[str | None]]


def resolver(said: str | Resolver) -> Resolver:
    """The function behind the setting `SCOPE`.

    Args:
        said: `"user"`, whom Django or the REST framework has authenticated; `"header:NAME"`, `"authorization"`,
            `"anonymous"`; or a function of the request that returns the account, or None; also a coroutine function.

    Raises:
        ConfigurationError: it is none of these.
    """
    if callable(said):
        return said
    if said == "user":
        return user
    try:
        of_scope, of_environ = scope.resolver(said), environ.resolver(said)
    except ConfigurationError as error:
        raise ConfigurationError([fault.replace("scope is", "SCOPE is", 1) for fault in error.faults]) from None
    return _OfMessage(of_scope, of_environ)


class _OfMessage:
    """By what the request itself says: found without waiting for anything."""

    def __init__(self, of_scope: scope.Resolver, of_environ: environ.Resolver) -> None:
        self._of_scope = of_scope
        self._of_environ = of_environ

    def __call__(self, request: Any) -> Any:
        return self._of_scope(request.scope) if hasattr(request, "scope") else self._of_environ(request.environ)


def user(request: Any) -> str | None:
    """The primary key of the user; None if nobody is authenticated, so that the request is refused (R17)."""
    found = getattr(request, "user", None)  # there is none without AuthenticationMiddleware
    if found is None or not found.is_authenticated:
        found = _user_of_view(request)
    return None if found is None or not found.is_authenticated else str(found.pk)


def _user_of_view(request: Any) -> Any:
    """Whom the REST framework will authenticate, by the classes that the view itself names."""
    view = _view_of(request)
    made: Any = view.cls(**view.initkwargs) if hasattr(view, "cls") else None
    if not hasattr(made, "initialize_request"):
        return None
    from rest_framework.exceptions import APIException  # noqa: PLC0415 - the view is one of it

    if hasattr(view, "actions"):
        made.action_map = view.actions
    try:
        return made.initialize_request(request).user
    except APIException:
        return None


def _view_of(request: Any) -> Any:
    """The view behind a path; behind one of the door itself, one that authenticates as the project's views do."""
    try:
        return resolve(request.path_info, getattr(request, "urlconf", None)).func
    except Resolver404:
        if not apps.is_installed("rest_framework"):
            return None
        from rest_framework.views import APIView  # noqa: PLC0415 - it is there

        return APIView.as_view()


async def account_async(resolving: Resolver, request: Any) -> str | None:
    """The account that a request belongs to, found beside the event loop; empty is none."""
    if isinstance(resolving, _OfMessage):
        return account(resolving, request)
    if iscoroutinefunction(resolving):
        return _checked(await resolving(request))
    return _checked(await sync_to_async(resolving)(request))


def account(resolving: Resolver, request: Any) -> str | None:
    """The same on this thread."""
    return _checked(resolving(request))


def _checked(found: Any) -> str | None:
    if inspect.isawaitable(found):
        raise CallerError("SCOPE is a coroutine function, and this server runs Django without an event loop")
    if found is not None and not isinstance(found, str):
        raise CallerError(f"SCOPE gave a {type(found).__name__}; it must give a string, or None")
    return found or None
