"""Django without a project: what it asks for before its parts can be used."""

from __future__ import annotations

import django
import pymysql
from django.conf import settings


def set_up() -> None:
    """Configure Django, if it is not yet; with PyMySQL for its driver of MySQL."""
    if settings.configured:
        return
    pymysql.version_info = (2, 2, 7, "final", 0)  # as which Django takes it for the driver that it asks for
    pymysql.install_as_MySQLdb()
    settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}, USE_TZ=True)
    django.setup()
