"""The WSGI door around a Flask application, which asks Flask's own router what a request is for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from flask import Flask
from flask.views import View
from werkzeug.exceptions import HTTPException

from retrysafe.errors import ConfigurationError
from retrysafe.protocol.policy import METHODS_NEVER, OPTIONS, Policy
from retrysafe.protocol.published import Published
from retrysafe.server.endpoint import Endpoint
from retrysafe.server.environ import Environ
from retrysafe.server.marker import MarkedRoutes, options_of
from retrysafe.server.routes import Route
from retrysafe.server.wsgi import IdempotencyMiddleware

PREFIX = "IDEMPOTENCY_"
_DOOR = (
    "store", "scope", "routes", "mode", "namespace", "secret", "encryption_keys", "authorize", "observer",
    "contract_path",
)  # fmt: skip
_EXTENSION = "retrysafe"


class FlaskMiddleware(IdempotencyMiddleware):
    """The door; a view that is marked by `@idempotent` is enrolled as its mark says, every other one as for WSGI.

    A request that Flask's router refuses (404, 405, a redirect to the path with a slash) passes: nothing of it is kept.

    Args:
        flask: whose views are asked for.
        policy: for every enrolled route; marks add to it.
        settings: of the door for WSGI.

    Raises:
        ConfigurationError: with everything that is wrong.
    """

    def __init__(self, flask: Flask, *, policy: Policy, **settings: Any) -> None:
        super().__init__(flask.wsgi_app, policy=policy, **settings)
        self._flask = flask
        self._marked = MarkedRoutes(policy, self._store)

    def route_of(self, environ: Environ) -> Route | None:
        """By the mark of the view, else by the table; None if there is no view."""
        adapter = self._flask.create_url_adapter(self._flask.request_class(environ))
        if adapter is None:
            raise AssertionError("Flask has no adapter for a request")
        try:
            rule, _ = adapter.match(return_rule=True)
        except HTTPException:
            return None
        method = environ["REQUEST_METHOD"].upper()
        options = _options(self._flask.view_functions.get(rule.endpoint), method)
        if options is None:
            return super().route_of(environ)
        return self._marked.find(method, rule.rule, options)

    def route_for(self, method: str, endpoint: Endpoint) -> Route | None:
        """What requests to a view fall under; None if it is not enrolled."""
        options = _options(endpoint.handler, method)
        if options is None:
            return super().route_for(method, endpoint)
        return self._marked.find(method, endpoint.path, options)

    def published(self) -> Published:
        """What the door promises to clients, of marked views too."""
        marked: dict[str, Policy | None] = {}
        for endpoint in FlaskRouter(self._flask).endpoints():
            for method in sorted((endpoint.methods or set()) - METHODS_NEVER):
                if _options(endpoint.handler, method) is not None:
                    route = self.route_for(method, endpoint)
                    marked[f"{method} {endpoint.path}"] = (
                        None if route is None or self.observes(route) else route.policy
                    )
        plain = super().published()
        return replace(plain, routes={**plain.routes, **marked})


class FlaskRouter:
    """The routes of a Flask application.

    Args:
        flask: it.
    """

    def __init__(self, flask: Flask) -> None:
        self._flask = flask

    def endpoints(self) -> Iterator[Endpoint]:
        """All views that it knows, with their paths as Flask writes them."""
        for rule in self._flask.url_map.iter_rules():
            view = self._flask.view_functions.get(rule.endpoint)
            yield Endpoint(rule.rule, frozenset(rule.methods or ()), view, getattr(view, "view_class", None))

    def reaches(self, method: str, path: str) -> bool:
        """Whether a request would come to a view."""
        try:
            self._flask.url_map.bind("localhost").match(path, method)
        except HTTPException:
            return False
        return True


def _options(view: Any, method: str) -> Mapping[str, Any] | None:
    """What a view is marked with: the function, or in a class of views the method."""
    view_class: type[View] | None = getattr(view, "view_class", None)
    if view_class is None:
        return options_of(view)
    handler = getattr(view_class, method.lower(), None) or view_class.dispatch_request
    return options_of(handler)


class Idempotency:
    """The extension: makes the views of a Flask application safe to retry.

    Its settings are those of `retrysafe.wsgi.IdempotencyMiddleware` and of `retrysafe.Policy`; `app.config` may have
    each as `IDEMPOTENCY_` and its name in upper case (`IDEMPOTENCY_STORE`, `IDEMPOTENCY_LIFETIME`), which wins.

    Args:
        app: the application; without one, call `init_app` later.
        settings: as above.

    Raises:
        ConfigurationError: with everything that is wrong.
    """

    def __init__(self, app: Flask | None = None, **settings: Any) -> None:
        self._settings = settings
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Put the door around an application.

        Raises:
            ConfigurationError: with everything that is wrong, or it has a door already.
        """
        if _EXTENSION in app.extensions:
            raise ConfigurationError(["this application has an Idempotency already; one is enough"])
        settings = {**self._settings, **_configured(app.config)}
        policy = {name: settings.pop(name) for name in OPTIONS if name in settings and name not in _DOOR}
        if unknown := sorted(set(settings) - set(_DOOR)):
            raise ConfigurationError(
                [f"Idempotency has no setting {name} (IDEMPOTENCY_{name.upper()})" for name in unknown]
            )
        if lacking := [name for name in ("store", "scope") if name not in settings]:
            raise ConfigurationError([f"{name}= or IDEMPOTENCY_{name.upper()} is required" for name in lacking])
        door = FlaskMiddleware(app, policy=Policy(**policy), **settings)
        app.extensions[_EXTENSION] = door
        app.wsgi_app = door  # type: ignore[method-assign]  # as Flask's documentation says it is done


def _configured(config: Mapping[str, Any]) -> dict[str, Any]:
    names = {name: name.removeprefix(PREFIX).lower() for name in config if name.startswith(PREFIX)}
    return {setting: config[name] for name, setting in names.items()}
