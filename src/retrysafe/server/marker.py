"""`@idempotent`: what is to hold for a handler, said where the handler is. For the glue of frameworks.

The mark is read before the handler runs, by whoever knows the framework's router. And the marked function says when it
is entered, so that what a framework refuses in front of it (a method, a malformed content, missing rights) leaves no
record.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from retrysafe.errors import ConfigurationError
from retrysafe.operation.handle import current_operation
from retrysafe.protocol.policy import METHODS_NEVER, OPTIONS, Policy
from retrysafe.server.routes import Route, marked_route
from retrysafe.server.settings import check_transactional
from retrysafe.stores.contract import Store

H = TypeVar("H", bound=Callable[..., Any])

_MARK = "retrysafe_options"


def idempotent(**options: Any) -> Callable[[H], H]:
    """Mark a handler: requests to it that carry a key are safe to retry.

    Args:
        options: those of `Policy`; what is not given is as in the policy of the door. So `lifetime="7d"`, in the units
            that durations are written with.

    Raises:
        ConfigurationError: there is no such option, or it may not be that.
    """
    if unknown := sorted(set(options) - set(OPTIONS)):
        raise ConfigurationError([f"@idempotent has no option {name}; those of Policy are" for name in unknown])
    Policy(**options)  # what is wrong is told where it is written

    def mark(handler: H) -> H:
        if not inspect.isroutine(handler):
            raise ConfigurationError([f"@idempotent marks functions and methods, and {handler!r} is none"])
        marked = _entering_async(handler) if inspect.iscoroutinefunction(handler) else _entering(handler)
        setattr(marked, _MARK, options)
        return marked

    return mark


def _entering(handler: H) -> H:
    @functools.wraps(handler)
    def entering(*arguments: Any, **named: Any) -> Any:
        _enter()
        return handler(*arguments, **named)

    return entering  # type: ignore[return-value]  # the same signature


def _entering_async(handler: H) -> H:
    @functools.wraps(handler)
    async def entering(*arguments: Any, **named: Any) -> Any:
        _enter()
        return await handler(*arguments, **named)

    return entering  # type: ignore[return-value]  # the same signature


def _enter() -> None:
    if (current := current_operation()) is not None:
        current.enter()


def options_of(handler: Any) -> Mapping[str, Any] | None:
    """What a handler is marked with; None if it is not. Wrappers that keep attributes (`functools.wraps`) keep it."""
    found: Mapping[str, Any] | None = getattr(handler, _MARK, None)
    return found


class MarkedRoutes:
    """The routes of marked handlers, each made once.

    Args:
        default: the policy that marks add to.
        store: of the records.
    """

    def __init__(self, default: Policy, store: Store) -> None:
        self._default = default
        self._store = store
        self._made: dict[tuple[str, int], tuple[Mapping[str, Any], Route]] = {}

    def find(self, method: str, path: str, options: Mapping[str, Any]) -> Route | None:
        """The route of a marked handler; None for a method that is not enrolled.

        A mark enrols every method that may have keys, unless it names some.

        Args:
            method: upper case.
            path: the pattern that the framework's router has for it.
            options: of the mark.

        Raises:
            ConfigurationError: the store cannot do what the mark asks for.
        """
        if method in METHODS_NEVER or method not in options.get("methods", (method,)):
            return None
        entry = f"{method} {path}"
        made = self._made.get((entry, id(options)))
        if made is None:  # the options are kept with it, so that their identity is not given to others
            route = marked_route(entry, replace(self._default, **options))
            if route.policy.transactional:
                check_transactional([route.entry], self._store)
            made = self._made[entry, id(options)] = options, route
        return made[1]
