"""Which requests are protected: by the mark of the view that Django's router finds, else by the table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.urls import Resolver404, URLPattern, get_resolver, resolve

from retrysafe.protocol.policy import METHODS_NEVER, Policy
from retrysafe.server.marker import MarkedRoutes, options_of
from retrysafe.server.routes import Route, Routes

_METHODS = ("POST", "PATCH", "PUT", "DELETE")
_VARIABLE = re.compile(r"<(?:[^:<>]+:)?([^<>]+)>")

# What the generic views of the REST framework go through for a method; the last is where their effects begin.
_GENERIC = {
    "post": ("create", "perform_create"),
    "put": ("update", "perform_update"),
    "patch": ("partial_update", "perform_update"),
    "delete": ("destroy", "perform_destroy"),
    "create": ("perform_create",),
    "update": ("perform_update",),
    "partial_update": ("perform_update",),
    "destroy": ("perform_destroy",),
}


class Enrolment:
    """Finds the route of a request.

    Args:
        table: of the settings.
        marked: the routes of marked views.
    """

    def __init__(self, table: Routes, marked: MarkedRoutes) -> None:
        self._table = table
        self._named: dict[str, Route | None] = {}
        self.marked = marked

    def route_of(self, request: Any) -> Route | None:
        """The route of a request; None if it is not enrolled, or if no view would answer it."""
        method = request.method.upper()
        if method in METHODS_NEVER:
            return None
        try:
            match = resolve(request.path_info, getattr(request, "urlconf", None))
        except Resolver404:
            return None
        if not answers(match.func, method):
            return None
        options = mark_of(match.func, method)
        if options is None:
            return self._table.find(method, request.path_info)
        return self.marked.find(method, f"/{match.route}", options)

    def route_at(self, method: str, pattern: str, options: Mapping[str, Any] | None) -> Route | None:
        """The route of requests to a view, before there are any; None if it is not enrolled.

        Args:
            method: upper case.
            pattern: that leads to it.
            options: that it is marked with; None if it is not.
        """
        if options is None:
            return self._table.find(method, _VARIABLE.sub("1", pattern))
        return self.marked.find(method, pattern, options)

    def named(self, entry: str) -> Route | None:
        """The route of an entry, as records keep it; None if there is none any more."""
        if entry not in self._named:
            method, _, path = entry.partition(" /")
            self._named[entry] = self._marked_at(method, path) or self._table.named(entry)
        return self._named[entry]

    def _marked_at(self, method: str, path: str) -> Route | None:
        for pattern, view in views():
            if pattern == path and (options := mark_of(view, method)) is not None:
                return self.marked.find(method, f"/{path}", options)
        return None

    def policy_of(self, entry: str) -> Policy:
        """What holds for the records of an entry; of one that is not there any more, the default."""
        found = self.named(entry)
        return self._table.policy_of(entry) if found is None else found.policy

    def entries(self) -> Mapping[str, Policy | None]:
        """What holds for each entry of the table, and for each marked view; None for what is taken out."""
        marked = {
            f"{method} {_path_of(pattern)}": self.marked.policy(options)
            for pattern, view in views()
            for method in _METHODS
            if (options := mark_of(view, method)) is not None and _takes(view, method, options)
        }
        return {**self._table.entries(), **marked}


def _takes(view: Any, method: str, options: Mapping[str, Any]) -> bool:
    """Whether a marked view takes a method. Of a function nobody can tell: its mark is believed, else it is POST."""
    named = options.get("methods")
    if named is not None:
        return method in named
    return method == "POST" if class_of(view) is None else answers(view, method)


def _path_of(pattern: str) -> str:
    """A pattern as clients know it: `/charges/{pk}`, whether it is written as a path or as a regular expression."""
    from django.contrib.admindocs.views import simplify_regex  # noqa: PLC0415 - brings in the admin, for this alone

    return _VARIABLE.sub(r"{\1}", simplify_regex(pattern))


def answers(view: Any, method: str) -> bool:
    """Whether a view answers a method: a class has a method for it, a function may always."""
    return class_of(view) is None or _name(view, method) is not None


def mark_of(view: Any, method: str) -> Mapping[str, Any] | None:
    """What a view is marked with for a method; None if it is not.

    In a class the method may be marked, or what a generic view of the REST framework goes on to: `perform_create`, say.
    """
    for handler in _handlers(view, method):
        if (options := options_of(handler)) is not None:
            return options
    return options_of(view)


def handler_of(view: Any, method: str) -> Any:
    """What answers a method: the function, or that of the class, or what a generic view of the REST framework goes on
    to and the project has written.
    """
    candidates = [it for it in _handlers(view, method) if it is not None]
    own = [it for it in candidates if not (getattr(it, "__module__", "") or "").startswith("rest_framework.")]
    return next(iter([*own, *candidates]), view)


def _handlers(view: Any, method: str) -> Iterator[Any]:
    owner, name = class_of(view), _name(view, method)
    if owner is not None and name is not None:
        for candidate in (name, *_GENERIC.get(name, ())):
            yield getattr(owner, candidate, None)


def class_of(view: Any) -> Any:
    """The class behind a view: of Django, or of the REST framework; None if it is a function."""
    return getattr(view, "cls", None) or getattr(view, "view_class", None)


def _name(view: Any, method: str) -> str | None:
    """The method of its class that answers; None if none does."""
    actions: Mapping[str, str] | None = getattr(view, "actions", None)
    name = method.lower() if actions is None else actions.get(method.lower())
    return name if name is not None and hasattr(class_of(view), name) else None


def views() -> Iterator[tuple[str, Any]]:
    """Every view of the project, and the pattern that leads to it."""
    yield from _views(get_resolver().url_patterns, "")


def _views(patterns: Sequence[Any], before: str) -> Iterator[tuple[str, Any]]:
    for pattern in patterns:
        path = before + str(pattern.pattern)
        if isinstance(pattern, URLPattern):
            yield path, pattern.callback
        else:
            yield from _views(pattern.url_patterns, path)
