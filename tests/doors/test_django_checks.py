"""`manage.py check`: each thing that it finds, and that it finds nothing where nothing is wrong."""

from __future__ import annotations

import re
import types

import pytest
from django.conf import settings
from django.http import HttpResponse
from django.test import override_settings
from django.urls import include, path
from django.views import View

from retrysafe.django.checks import check
from retrysafe.django.settings import configuration
from retrysafe.errors import ConfigurationError
from retrysafe.server.marker import idempotent
from retrysafe.stores.memory import MemoryStore
from retrysafe.stores.sqlite import SqliteStore
from tests.operation.django_setup import set_up

set_up()

OURS = "retrysafe.django.middleware.IdempotencyMiddleware"
AUTHENTICATION = "django.contrib.auth.middleware.AuthenticationMiddleware"


def plain(_):
    return HttpResponse()


def required(function):
    return idempotent(required=True)(function)


class Refunds(View):
    def post(self, request):
        return HttpResponse()

    patch = required(post)


def found(*patterns, middleware=(OURS,), **idempotency):
    """The ids of what is found, and where."""
    urls = types.ModuleType("urls")
    urls.urlpatterns = list(patterns)  # type: ignore[attr-defined]  # as every module of paths has it
    idempotency = {"STORE": SqliteStore("never-opened.db"), "SCOPE": "header:X-Account", **idempotency}
    with override_settings(ROOT_URLCONF=urls, MIDDLEWARE=list(middleware), IDEMPOTENCY=idempotency):
        return [
            (message.id.removeprefix("retrysafe."), re.split(r" is | requires | no route ", message.msg)[0])
            for message in check()
        ]


def test_nothing_is_wrong():
    """Views that are protected, and those of money that require a key."""
    assert not found(path("notes", plain), path("charges", required(plain)), path("borders", plain))


@pytest.mark.parametrize(("patterns", "idempotency", "expected"), [
    ([path("charges", plain)], {}, [("W002", "POST /charges")]),
    ([path("shop/", include([path("<int:pk>/refund", plain)]))], {}, [("W002", "POST /shop/<int:pk>/refund")]),
    ([path("refunds", Refunds.as_view())], {}, [("W002", "POST /refunds")]),
    ([path("charges", plain)], {"POLICY": {"required": True}}, []),
    ([path("charges", plain)], {"ROUTES": {"POST /charges": {"required": True}}}, []),
    ([path("notes/<int:pk>", plain)], {"ROUTES": {"POST /notes/{pk}": None}}, []),
    ([path("charges/<int:pk>", plain)], {"ROUTES": {"POST /charges/{pk}": None}}, [("W001", "POST /charges/<int:pk>")]),
    ([path("notes", plain)], {"ROUTES": {"PUT /notse": {}}}, [("W007", "PUT /notse")]),
    ([path("notes", plain)], {"POLICY": {"methods": ["PUT"]}}, [("W001", "POST /notes")]),
])  # fmt: skip
def test_views(patterns, idempotency, expected):
    """Those that are not protected; and those that look as if they moved money, and require no key."""
    assert found(*patterns, **idempotency) == expected


@pytest.mark.parametrize(("middleware", "scope", "expected"), [
    ((), "user", ["E002"]),
    ((OURS, AUTHENTICATION), "user", ["E003"]),
    ((OURS, AUTHENTICATION), "header:X-Account", []),
    ((OURS,), "authorization", ["W006"]),
    ((AUTHENTICATION, OURS), "user", []),
])  # fmt: skip
def test_middleware(middleware, scope, expected):
    """It is there, and stands behind what authenticates."""
    assert [number for number, _ in found(middleware=middleware, SCOPE=scope)] == expected


@pytest.mark.parametrize(("idempotency", "fault"), [
    ({"STROE": "memory://"}, "has no entry STROE"),
    ({"STORE": "database:other"}, 'DATABASES has no "other"'),
    ({"STORE": "database:default"}, "is in memory"),
    ({"STORE": "nothing://"}, "no store has the scheme"),
    ({"SCOPE": "somebody"}, "SCOPE is 'somebody'"),
    ({"SCOPE": "no.such.thing"}, "names nothing"),
    ({"POLICY": {"lifetme": "7d"}}, "POLICY has no option lifetme"),
    ({"POLICY": {"lifetime": "7 moons"}}, "policy.lifetime"),
    ({"ROUTES": {"POST /charges": 7}}, "must be a dictionary of options"),
    ({"ROUTES": {"POST /charges": {"transactional": True}}}, "cannot commit a record together"),
    ({"DRAIN": "soon"}, "DRAIN"),
])  # fmt: skip
def test_settings(idempotency, fault):
    """Each fault is told by the check, and by the middleware when it starts."""
    idempotency = {"STORE": MemoryStore(), "SCOPE": "authorization", **idempotency}
    with override_settings(IDEMPOTENCY=idempotency):
        assert [fault in message.msg for message in check() if message.id == "retrysafe.E001"] == [True]
        with pytest.raises(ConfigurationError, match=fault.replace("(", r"\(")):
            configuration()


@pytest.mark.parametrize(("database", "url"), [
    ({"ENGINE": "postgresql", "NAME": "shop", "USER": "a b", "PASSWORD": "x@/:?", "HOST": "db", "PORT": "5433",
      "OPTIONS": {"sslmode": "require", "pool": True}}, "postgresql db:5433/shop retrysafe"),
    ({"ENGINE": "mysql", "NAME": "shop", "USER": "owner", "PASSWORD": "", "HOST": "", "PORT": ""},
     "mysql 127.0.0.1:3306/shop"),
    ({"ENGINE": "sqlite3", "NAME": "/tmp/a b%20.db"}, "sqlite /tmp/a b%20.db"),
])  # fmt: skip
def test_databases(database, url):
    """The store is where Django's own connection leads to."""
    from django.db import connections  # noqa: PLC0415 - after it was set up

    alias = "for_url"
    said = {**database, "ENGINE": f"django.db.backends.{database['ENGINE']}"}
    connections.settings[alias] = connections.configure_settings({"default": {}, alias: said})[alias]
    try:
        with override_settings(IDEMPOTENCY={"STORE": f"database:{alias}"}):
            assert configuration().store.name == url
    finally:
        del connections.settings[alias]
        del connections[alias]
    assert settings.configured
