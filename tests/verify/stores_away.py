"""Takes a store of keys away from whoever uses it, and brings it back, without an end of its server."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from urllib.parse import parse_qs, unquote, urlsplit

import psycopg
import pymysql

from tests.stores.dynamodb_service import Service

BringBack = Callable[[], None]


def take_away(url: str, server: int) -> BringBack:
    """Nobody can write to the store from here on.

    Args:
        url: of the store.
        server: the process of Redis, which is stopped; of no other.
    """
    kinds: dict[str, Callable[[], BringBack]] = {
        "sqlite": lambda: _sqlite(url),
        "postgresql": lambda: _postgres(url),
        "mysql": lambda: _mysql(url),
        "redis": lambda: _redis(server),
        "dynamodb": lambda: _dynamodb(url),
    }
    return kinds[urlsplit(url).scheme]()


def _sqlite(url: str) -> BringBack:
    """Another connection writes to the file and does not end."""
    connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, timeout=5)
    connection.execute("BEGIN IMMEDIATE")
    return connection.close


def _postgres(url: str) -> BringBack:
    """Another connection holds the table."""
    connection = psycopg.connect(url)
    connection.execute("LOCK TABLE retrysafe.records IN ACCESS EXCLUSIVE MODE")
    return connection.close


def _mysql(url: str) -> BringBack:
    """Another connection holds the table."""
    parts = urlsplit(url)
    connection = pymysql.connect(
        host=parts.hostname,
        port=parts.port or 3306,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        database=parts.path.lstrip("/"),
        ssl_disabled=True,
    )
    connection.cursor().execute("LOCK TABLES retrysafe_records WRITE")
    return connection.close


def _redis(server: int) -> BringBack:
    """The server stands still."""
    os.kill(server, signal.SIGSTOP)
    return lambda: os.kill(server, signal.SIGCONT)


def _dynamodb(url: str) -> BringBack:
    """The service fails whatever is asked of the table."""
    parts = urlsplit(url)
    service, table = Service(parse_qs(parts.query)["endpoint_url"][0]), parts.hostname or ""
    service.trouble("failed", table)
    return lambda: service.trouble("failed", table, times=0)
