"""Whose key it is: from an ASGI connection to the account (contract part B).

There is no default and no shared bucket: who says nothing gets an error at start-up, and a request
without an account is refused (R17).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from retrysafe.errors import ConfigurationError

Connection = MutableMapping[str, Any]
Resolver = Callable[[Connection], str | None | Awaitable[str | None]]

ANONYMOUS = "anonymous"
_HEADER = re.compile(r"header: *([!#$%&'*+.^_`|~0-9A-Za-z-]+) *")


def resolver(scope: str | Resolver) -> Resolver:
    """The function behind a scope setting.

    Args:
        scope: `"header:NAME"`, `"authorization"`, `"user"`, `"anonymous"`, or a function of the ASGI
            connection scope that returns the account, or None; it may be a coroutine function.

    Raises:
        ConfigurationError: it is none of these.
    """
    if callable(scope):
        return scope
    if scope == "authorization":
        return _header(b"authorization")
    if scope == "user":
        return _user
    if scope == ANONYMOUS:
        return lambda _: ANONYMOUS
    if isinstance(scope, str) and (name := named_header(scope)):
        return _header(name.encode())
    raise ConfigurationError(
        [f'scope is {scope!r}; it must be "header:NAME", "authorization", "user", "anonymous" or a function']
    )


def named_header(scope: str) -> str | None:
    """The field that `"header:NAME"` names, in lower case; None if the setting is something else."""
    named = _HEADER.fullmatch(scope)
    return named[1].lower() if named else None


def _header(name: bytes) -> Resolver:
    def from_header(connection: Connection) -> str | None:
        account: bytes | None = None
        for field, value in connection["headers"]:
            if field == name:
                if account is not None:
                    return None  # two claims of who is asking; a proxy in front that appends must not let one through
                account = value
        return None if account is None else account.strip().decode("latin-1")

    return from_header


def _user(connection: Connection) -> str | None:
    """The user that authentication middleware left in the connection, as Starlette's does."""
    user = connection.get("user")
    if user is None or not getattr(user, "is_authenticated", False):
        return None
    for attribute in ("identity", "display_name"):
        try:
            value = getattr(user, attribute)
        except (AttributeError, NotImplementedError):
            continue
        if value:
            return str(value)
    return None
