"""The shop in a Django project: what its packages share."""

from __future__ import annotations

import os
import time
from typing import Any

import django
from django.conf import settings

from conformance.shop import Answer, Shop

SHOP = Shop()


def configure(
    urls: str,
    *,
    middleware: tuple[str, ...] = (),
    apps: tuple[str, ...] = (),
    options: dict[str, Any] | None = None,
    **others: Any,
) -> None:
    """Set Django up, with its database in a file of this run.

    Args:
        urls: the module that has the routes.
        middleware: of the package.
        apps: of the package, and what it needs.
        options: of the database.
        others: further settings.
    """
    place = os.environ["STORE"].removeprefix("sqlite:///")
    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1"],
        SECRET_KEY="of a run",
        ROOT_URLCONF=urls,
        MIDDLEWARE=list(middleware),
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", *apps],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": place, "OPTIONS": options or {}}},
        USE_TZ=True,
        **others,
    )
    django.setup()


def placed(request: Any, body: bytes) -> Answer:
    """The work of a blocking view."""
    time.sleep(SHOP.delay_s(request.GET))  # noqa: TID251 - it takes the time that it is asked to take
    return SHOP.place(request.path, request.GET, body)
