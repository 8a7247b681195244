"""`@idempotent`: what is to hold for a handler, said where the handler is. For the glue of frameworks.

The mark is read before the handler runs, by whoever knows the framework's router. And the marked function says when it
is entered, so that what a framework refuses in front of it (a method, a malformed content, missing rights) leaves no
record.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from retrysafe.errors import ConfigurationError
from retrysafe.operation.handle import current_operation
from retrysafe.operation.noted import note
from retrysafe.protocol.effects import Fate
from retrysafe.protocol.policy import METHODS_NEVER, OPTIONS, Policy
from retrysafe.server.routes import Route, marked_route
from retrysafe.server.settings import check_transactional
from retrysafe.stores.contract import Store

H = TypeVar("H", bound=Callable[..., Any])

_MARK = "retrysafe_options"

# Whether these can be used is known with the rest of the policy alone.
_WITH_OTHERS = {"lease", "execution_max", "key_length_min", "key_length_max", "store_body", "store_body_redact"}


class Marker(Mapping[str, Any]):
    """What a handler is marked with: options of the policy, by name; the rest is as in the policy of the door.

    Args:
        options: of the policy.
        enrolled: False takes the handler out.

    Attributes:
        told_by: the callable that says when it is entered; None if nothing does.
    """

    def __init__(self, options: Mapping[str, Any], *, enrolled: bool = True) -> None:
        self._options = dict(options)
        self.enrolled = enrolled
        self.told_by: Callable[..., Any] | None = None

    def __getitem__(self, name: str) -> Any:
        return self._options[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._options)

    def __len__(self) -> int:
        return len(self._options)

    def policy(self, default: Policy) -> Policy | None:
        """What holds for the handler; None if it is taken out.

        Raises:
            ConfigurationError: its options do not go together with those of the default.
        """
        if not self.enrolled:
            return None
        options = dict(self)
        if default.transactional and options.get("transactional") is False:
            options.setdefault("recovery", "manual")  # what transactional implied goes with it
        return replace(default, **options)


def idempotent(*, enrolled: bool = True, **options: Any) -> Callable[[H], H]:
    """Mark a handler: requests to it that carry a key are safe to retry.

    Put it next to the function, beneath the decorator of the framework.

    Args:
        enrolled: False takes the handler out.
        options: those of `Policy`; what is not given is as in the policy of the door. So `lifetime="7d"`, in the units
            that durations are written with.

    Raises:
        ConfigurationError: there is no such option, or it may not be that.
    """
    check_marker(options, "@idempotent", enrolled=enrolled)

    def mark(handler: H) -> H:
        if not inspect.isroutine(handler):
            raise ConfigurationError([f"@idempotent marks functions and methods, and {handler!r} is none"])
        marker = Marker(options, enrolled=enrolled)
        marked: H = _entering(handler)
        if marked is not handler:
            marker.told_by = marked
        setattr(marked, _MARK, marker)
        return marked

    return mark


def check_marker(options: Mapping[str, Any], where: str, *, enrolled: bool = True) -> None:
    """What is wrong with options is told where they are written.

    Args:
        options: of a policy.
        where: they stand, for people.
        enrolled: False takes a handler out.

    Raises:
        ConfigurationError: there is no such option, or it may not be that.
    """
    if unknown := sorted(set(options) - set(OPTIONS)):
        raise ConfigurationError([f"{where} has no option {name}; those of Policy are" for name in unknown])
    if options and not enrolled:
        raise ConfigurationError([f"{where}: a handler that is taken out has no options; remove one of both"])
    Policy(**{name: value for name, value in options.items() if name not in _WITH_OTHERS})


def options_of(handler: Any) -> Mapping[str, Any] | None:
    """What a handler is marked with; None if it is not. Wrappers that keep attributes (`functools.wraps`) keep it."""
    found: Mapping[str, Any] | None = getattr(handler, _MARK, None)
    return found


def marker_of(handler: Any, method: str) -> Marker | None:
    """What a handler is marked with, for requests by a method; None if it is not marked.

    Args:
        handler: a function, a class with a function for each method, or what it is marked with.
        method: upper case.
    """
    if isinstance(handler, Marker):
        return handler
    found = options_of(_function(handler, method))
    return found if isinstance(found, Marker) else None


def tells(handler: Any, method: str) -> bool:
    """Whether calling the handler says so.

    A decorator around a marked handler has copied the mark. Nobody knows whether it calls what it is around, so of it
    nothing is believed.
    """
    handler = _function(handler, method)
    marker = marker_of(handler, method)
    return marker is not None and marker.told_by is not None and marker.told_by is handler


def _function(handler: Any, method: str) -> Any:
    while isinstance(handler, functools.partial):
        handler = handler.func
    return getattr(handler, method.lower(), None) if inspect.isclass(handler) else handler


def _entering(handler: Any) -> Any:
    """The handler, and it says that it was entered; what makes a generator stays as it is, by which it is known."""
    if inspect.iscoroutinefunction(handler):

        @functools.wraps(handler)
        async def entering_async(*arguments: Any, **named: Any) -> Any:
            _enter()
            return await handler(*arguments, **named)

        return entering_async
    if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
        return handler

    @functools.wraps(handler)
    def entering(*arguments: Any, **named: Any) -> Any:
        _enter()
        return handler(*arguments, **named)

    return entering


def _enter() -> None:
    note(Fate.RAN)
    if (current := current_operation()) is not None:
        current.enter()


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

    def policy(self, options: Mapping[str, Any]) -> Policy | None:
        """What holds for a marked handler; None if it is taken out."""
        return _marker(options).policy(self._default)

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
        marker = _marker(options)
        if method in METHODS_NEVER or method not in marker.get("methods", (method,)):
            return None
        entry = f"{method} {path}"
        made = self._made.get((entry, id(options)))
        if made is None:  # the options are kept with it, so that their identity is not given to others
            policy = marker.policy(self._default)
            if policy is None:
                return None
            route = replace(marked_route(entry, policy), marked=marker.told_by is not None)
            if route.policy.transactional:
                check_transactional([route.entry], self._store)
            made = self._made[entry, id(options)] = options, route
        return made[1]


def _marker(options: Mapping[str, Any]) -> Marker:
    return options if isinstance(options, Marker) else Marker(options)
