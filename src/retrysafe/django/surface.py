"""A Django project as what an audit looks at: its views, and the middleware in front of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import django
from django.conf import settings
from django.urls import Resolver404, resolve
from django.utils.module_loading import import_string

from retrysafe.audit.applications import file_of, methods_of
from retrysafe.audit.code import evidence_of
from retrysafe.audit.overlap import sample
from retrysafe.audit.surface import Door, Evidence, Kind, Operation, Surface
from retrysafe.audit.targets import TargetUnreachable, import_from_here
from retrysafe.django.enrolment import Enrolment, answers, class_of, handler_of, mark_of, views
from retrysafe.django.middleware import IdempotencyMiddleware
from retrysafe.django.scope import user
from retrysafe.django.settings import Configuration, configuration
from retrysafe.errors import ConfigurationError
from retrysafe.server.marker import MarkedRoutes, Marker
from retrysafe.server.routes import ANY

_METHODS = ("POST", "PATCH", "PUT", "DELETE")
_AUTHENTICATION = "django.contrib.auth.middleware.AuthenticationMiddleware"
_OF_LIBRARIES = ("django.contrib.", "django.views.generic.base", "rest_framework.", "retrysafe.")


def surface_of_project(settings_module: str | None, target: str = "") -> Surface:
    """What a project has, read from it without serving it or opening its store.

    Args:
        settings_module: of the project; None: it is set up already.
        target: as the user named it, if that was not by its settings.

    Raises:
        ConfigurationError: something is wrong with the setting `IDEMPOTENCY`.
        TargetUnreachable: the project cannot be set up.
    """
    if settings_module is not None:
        _set_up(settings_module)
    try:
        return surface(target or settings_module or "")
    except ImportError as error:
        raise TargetUnreachable(f"the project cannot be read: {type(error).__name__}: {error}") from error


def _set_up(settings_module: str) -> None:
    import_from_here()
    os.environ["DJANGO_SETTINGS_MODULE"] = settings_module
    try:
        django.setup()
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as error:
        fault = f'"{settings_module}" cannot be set up: {type(error).__name__}: {error}'
        raise TargetUnreachable(fault) from error


def surface(target: str) -> Surface:
    """What the project has that is set up.

    Raises:
        ConfigurationError: something is wrong with the setting `IDEMPOTENCY`.
    """
    places = [number for number, name in enumerate(settings.MIDDLEWARE) if _is_ours(name)]
    found = configuration() if places else None
    place = file_of(os.environ.get("DJANGO_SETTINGS_MODULE", ""))
    door = None
    if found is not None:
        table = found.routes.table
        door = Door(found.scope, found.store.name, found.policy, table, place, is_routed=True)
    return Surface(
        target,
        Kind.DJANGO,
        tuple(_operations(found)),
        door,
        _reaches,
        found is not None and found.resolver is user and _AUTHENTICATION in settings.MIDDLEWARE[places[0] :],
        file=place,
    )


def _is_ours(name: str) -> bool:
    made = None if name.startswith("django.") else import_string(name)
    return isinstance(made, type) and issubclass(made, IdempotencyMiddleware)


def _reaches(method: str, path: str) -> bool:
    try:
        match = resolve(path)
    except Resolver404:
        return False
    return answers(match.func, method)


# --- views ----------------------------------------------------------------------------------------


def _operations(found: Configuration | None) -> Iterator[Operation]:
    enrolment = None if found is None else Enrolment(found.routes, MarkedRoutes(found.policy, found.store))
    for pattern, view in views():
        for method in _methods(view):
            options = mark_of(view, method)
            route = None if enrolment is None else enrolment.route_at(method, f"/{pattern}", options)
            named: Any = () if found is None else found.routes.entry_for(method, sample(f"/{pattern}"))
            yield Operation(
                method,
                f"/{pattern}",
                None if route is None or found is None or found.observes(route.policy) else route.policy,
                declined=_is_out(options, method) or (options is None and named is None),
                entry=route.entry if options is None and route is not None and route.entry != ANY else "",
                options=None if options is None else dict(options),
                evidence=_evidence(view, method),
                handler=handler_of(view, method),
            )


def _is_out(options: Mapping[str, Any] | None, method: str) -> bool:
    if options is None:
        return False
    return (isinstance(options, Marker) and not options.enrolled) or method not in options.get("methods", (method,))


def _methods(view: Any) -> list[str]:
    """What a view takes. Of a function nobody can tell, unless a decorator of Django's says so; then it is POST."""
    is_of_admin = hasattr(view, "model_admin") or hasattr(view, "admin_site")
    if is_of_admin or (getattr(view, "__module__", "") or "").startswith(_OF_LIBRARIES):
        return []
    if class_of(view) is None:
        return methods_of(_declared(view))
    return [method for method in _METHODS if answers(view, method)]


def _declared(view: Any) -> frozenset[str] | None:
    """The methods that `require_POST` and its like let through; None if no such thing is around the function."""
    while view is not None:
        code, cells = getattr(view, "__code__", None), getattr(view, "__closure__", None) or ()
        for name, cell in zip(code.co_freevars if code else (), cells, strict=True):
            if name == "request_method_list":
                return frozenset(cell.cell_contents)
        view = getattr(view, "__wrapped__", None)
    return None


def _evidence(view: Any, method: str) -> Evidence:
    handler = handler_of(view, method)
    evidence = evidence_of(handler, method)
    shown: Callable[..., Any] | type = class_of(view) or view
    return replace(evidence, name=getattr(shown, "__name__", ""), words=evidence.words | _serialized(shown))


def _serialized(view: Any) -> frozenset[str]:
    """The fields of the serializer that a view of the REST framework names."""
    serializer = getattr(view, "serializer_class", None)
    declared = getattr(serializer, "_declared_fields", {})
    named = getattr(getattr(serializer, "Meta", None), "fields", ())
    return frozenset(declared) | frozenset(named if isinstance(named, (list, tuple)) else ())
