"""The application's own table, in the database of the records, for handlers that commit both together."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
import pymysql

from retrysafe.lab.evidence import Row

_TABLE = "CREATE TABLE IF NOT EXISTS proved_orders (scope VARCHAR(64), name VARCHAR(64), attempt INTEGER)"
_INSERT = "INSERT INTO proved_orders VALUES (%s, %s, %s)"
_SELECT = "SELECT scope, name, attempt FROM proved_orders WHERE name = %s"
STORES = ("sqlite", "postgres", "mariadb")


def connect(url: str) -> Any:
    """A connection past the store, whose statements begin a transaction."""
    parts = urlsplit(url)
    match parts.scheme:
        case "sqlite":
            return sqlite3.connect(parts.path.removeprefix("/"))
        case "postgresql":
            return psycopg.connect(url)
        case "mysql":
            return pymysql.connect(
                host=parts.hostname or "",
                port=parts.port or 0,
                user=unquote(parts.username or ""),
                password=unquote(parts.password or ""),
                database=parts.path.removeprefix("/"),
            )
    raise ValueError(f"no tables are kept at {parts.scheme}")


def prepare(url: str) -> None:
    """Make the table."""
    with closing(connect(url)) as database:
        execute(database, _TABLE)
        database.commit()


def insert(database: Any, row: Row) -> None:
    """Write a row, in the transaction that is open on the connection."""
    execute(database, _INSERT, (row.scope, row.key, row.attempt))


def rows(database: Any, key: str) -> list[Row]:
    """What was committed for a key."""
    cursor = execute(database, _SELECT, (key,))
    found = [Row(scope, name, attempt) for scope, name, attempt in cursor.fetchall()]
    database.rollback()
    return found


def execute(database: Any, statement: str, values: Sequence[Any] = ()) -> Any:
    """One statement, in the spelling of the driver."""
    if isinstance(database, sqlite3.Connection):
        statement = statement.replace("%s", "?")
    cursor = database.cursor()
    cursor.execute(statement, values)
    return cursor
