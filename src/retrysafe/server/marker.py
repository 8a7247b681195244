"""`@idempotent`: what holds for one handler, said where the handler is.

The marker is an attribute, so that a door can read it before the handler runs, through the application's own router.
And what it returns says when it is called: what refuses a request before that, such as validation or a dependency,
has run nothing (design: discard).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from retrysafe.errors import ConfigurationError
from retrysafe.operation.handle import current_operation
from retrysafe.protocol.policy import OPTIONS, Policy

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__idempotent__"


@dataclass(frozen=True, slots=True, eq=False)
class Marker:
    """What a handler is marked with.

    Attributes:
        options: of the policy, by name; the rest is as the door's default policy has it.
        enrolled: False takes the handler out.
        told_by: the callable that says when it is reached; None if nothing does.
    """

    options: Mapping[str, Any]
    enrolled: bool = True
    told_by: Callable[..., Any] | None = None

    def policy(self, default: Policy) -> Policy | None:
        """What holds for the handler; None if it is taken out.

        Raises:
            ConfigurationError: its options do not go together with those of the default.
        """
        if not self.enrolled:
            return None
        options = dict(self.options)
        if default.transactional and options.get("transactional") is False:
            options.setdefault("recovery", "manual")  # what transactional implied goes with it
        return replace(default, **options)


def idempotent(*, enrolled: bool = True, **options: Any) -> Callable[[F], F]:
    """Mark a handler: its requests are safe to retry, and this holds for them.

    Put it next to the handler, beneath the decorator of the framework.

    Args:
        enrolled: False takes the handler out.
        options: those of `Policy`; what is not given is as in the `policy` of the middleware.

    Raises:
        ConfigurationError: an option is none, or has no meaning. Their values are checked when the application starts.
    """
    marker = marker_from(options, "idempotent", enrolled=enrolled)

    def mark(handler: F) -> F:
        marked: F = _telling(handler)
        setattr(marked, _MARK, replace(marker, told_by=None if marked is handler else marked))
        return marked

    return mark


def marker_from(options: Mapping[str, Any], where: str, *, enrolled: bool = True) -> Marker:
    """A marker with these options. Whether their values go together is known with the default policy alone.

    Args:
        options: those of `Policy`.
        where: they stand, for people.
        enrolled: False takes the handler out.
    """
    if unknown := [name for name in options if name not in OPTIONS]:
        raise ConfigurationError([f"{where}: {', '.join(unknown)} is no option of a policy; see retrysafe.Policy"])
    if options and not enrolled:
        raise ConfigurationError([f"{where}: a handler that is taken out has no options; remove one of both"])
    return Marker(dict(options), enrolled)


def marker_of(handler: Any, method: str) -> Marker | None:
    """What a handler is marked with, for requests by a method; None if it is not marked.

    Args:
        handler: a function, or a class with a function for each method.
        method: upper case.
    """
    if isinstance(handler, Marker):
        return handler
    while isinstance(handler, functools.partial):
        handler = handler.func
    if inspect.isclass(handler):
        of_method = getattr(getattr(handler, method.lower(), None), _MARK, None)
        return of_method if isinstance(of_method, Marker) else vars(handler).get(_MARK)
    found = getattr(handler, _MARK, None)
    return found if isinstance(found, Marker) else None


def tells(handler: Any, method: str) -> bool:
    """Whether calling the handler says so.

    A decorator around a marked handler has copied the marker. Nobody knows whether it calls what it is around, so of it
    nothing is believed.
    """
    while isinstance(handler, functools.partial):
        handler = handler.func
    if inspect.isclass(handler):
        handler = getattr(handler, method.lower(), None)
    marker = marker_of(handler, method)
    return marker is not None and marker.told_by is not None and marker.told_by is handler


def _telling(handler: Any) -> Any:
    """The handler, and it says that it was reached; what is no plain function stays as it is."""
    if inspect.iscoroutinefunction(handler):

        @functools.wraps(handler)
        async def reached(*arguments: Any, **named: Any) -> Any:
            _reach()
            return await handler(*arguments, **named)

        return reached
    if not inspect.isfunction(handler) or inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
        return handler

    @functools.wraps(handler)
    def reached_in_thread(*arguments: Any, **named: Any) -> Any:
        _reach()
        return handler(*arguments, **named)

    return reached_in_thread


def _reach() -> None:
    operation = current_operation()
    if operation is not None:
        operation.reach_handler()
