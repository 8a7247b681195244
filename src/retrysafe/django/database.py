"""The store over a database of Django's: its tables stand beside those of the models, so that one commit is both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from django.db import connections
from django.utils.connection import ConnectionDoesNotExist

from retrysafe.errors import ConfigurationError
from retrysafe.stores.contract import HasSchema
from retrysafe.stores.location import open_store
from retrysafe.stores.sqlite_file import APPLICATION_ID, all_statements

_LIBPQ = ("sslmode", "sslrootcert", "sslcert", "sslkey")


def url_of(alias: str) -> str:
    """The URL of the store in the database of this alias; it may have a password in it.

    Args:
        alias: of `DATABASES`.

    Raises:
        ConfigurationError: there is no such database, or no store can be in it.
    """
    try:
        connection = connections[alias]
    except ConnectionDoesNotExist:
        raise ConfigurationError([f'STORE is "database:{alias}", and DATABASES has no "{alias}"']) from None
    if connection.vendor not in _URLS:
        fault = (
            f'the records cannot be in the database "{alias}", which is {connection.vendor}; '
            "they can be in PostgreSQL, MySQL, MariaDB and SQLite"
        )
        raise ConfigurationError([fault])
    return _URLS[connection.vendor](connection)


def _sqlite(connection: Any) -> str:
    if connection.is_in_memory_db():
        fault = (
            f'the database "{connection.alias}" is in memory, where no other connection sees it: the records need a '
            'file; for tests, set DATABASES[...]["TEST"]["NAME"]'
        )
        raise ConfigurationError([fault])
    return f"sqlite:///{quote(str(connection.settings_dict['NAME']))}"


def _postgresql(connection: Any) -> str:
    said = connection.settings_dict
    options = {name: str(said["OPTIONS"][name]) for name in _LIBPQ if name in said["OPTIONS"]}
    host = said["HOST"]
    if host.startswith("/"):  # the folder of its socket
        options["host"], host = host, ""
    return _url("postgresql", said, host, options)


def _mysql(connection: Any) -> str:
    said = connection.settings_dict
    tls = said["OPTIONS"].get("ssl")
    options = {} if not tls else {"tls": "true", **({"tls_ca": tls["ca"]} if "ca" in tls else {})}
    return _url("mysql", said, said["HOST"] or "127.0.0.1", options)


def _url(scheme: str, said: Mapping[str, Any], host: str, options: Mapping[str, str]) -> str:
    user = quote(said["USER"], safe="")
    who = f"{user}:{quote(said['PASSWORD'], safe='')}@" if said["PASSWORD"] else f"{user}@" if user else ""
    port = f":{said['PORT']}" if said["PORT"] else ""
    query = f"?{urlencode(options, quote_via=quote)}" if options else ""
    return f"{scheme}://{who}{host}{port}/{quote(said['NAME'], safe='')}{query}"


_URLS = {"sqlite": _sqlite, "postgresql": _postgresql, "mysql": _mysql}


def make_tables(alias: str) -> None:
    """Make the tables of the records, or bring them up to date.

    Raises:
        ConfigurationError: they cannot be in this database.
        StoreError: it cannot be reached, or must not be used.
    """
    store = open_store(url_of(alias))
    if connections[alias].vendor == "sqlite":
        _adopt(connections[alias])
    if not isinstance(store, HasSchema):
        raise TypeError(f"{store.name} has no tables")
    store.migrate()


def _adopt(connection: Any) -> None:
    """Make the tables by Django's connection in a file that has tables already, which the store itself would refuse."""
    with connection.cursor() as cursor:
        (application,) = cursor.execute("PRAGMA application_id").fetchone()
        if application == APPLICATION_ID:
            return
        cursor.execute("BEGIN IMMEDIATE")
        try:
            for statement in all_statements():
                cursor.execute(statement)
        except BaseException:
            cursor.execute("ROLLBACK")
            raise
        cursor.execute("COMMIT")
