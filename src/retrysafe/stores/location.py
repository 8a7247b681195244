"""A store from its URL."""

from __future__ import annotations

import re
from importlib import import_module
from urllib.parse import parse_qsl, unquote, urlsplit

from retrysafe.errors import ConfigurationError
from retrysafe.stores.contract import Store
from retrysafe.stores.memory import MemoryStore
from retrysafe.stores.sqlite import SqliteStore

_FORMS = "memory://, sqlite:///relative.db, sqlite:////absolute/path.db, redis://host:6379/0"


def open_store(url: str) -> Store:
    """The store that a URL names. It touches nothing until its `open` is called.

    Args:
        url: `memory://`; `sqlite:///relative.db` or `sqlite:////absolute/path.db`, with `?force=true`
            for a file on a network file system that only one host ever opens; `redis://host:6379/0`
            and its like, as in docs/how-to/redis.md.

    Raises:
        ConfigurationError: no store has such a URL; the message names those that there are.
    """
    parts = urlsplit(url)
    if re.fullmatch(r"rediss?(\+sentinel|\+cluster)?", parts.scheme):
        return _redis(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    store: Store
    match parts.scheme:
        case "memory":
            _refuse(url, parts.netloc or parts.path.strip("/"), "memory:// has no name: each is its own")
            store = MemoryStore()
        case "sqlite":
            path = unquote(parts.path[1:])
            _refuse(url, parts.netloc, "a relative path has three slashes before it, an absolute one four")
            _refuse(url, not path, "it names no file")
            store = SqliteStore(path, force=_flag(url, options, "force"))
        case scheme:
            raise ConfigurationError([f'no store has the scheme "{scheme}"; use one of {_FORMS}'])
    _refuse(url, options or parts.fragment, f"unknown: {', '.join(options) or parts.fragment}")
    return store


def _redis(url: str) -> Store:
    """Imported when it is wanted: it needs the libraries of its extra."""
    place = import_module("retrysafe.stores.redis_place").place_of(url)
    store: Store = import_module("retrysafe.stores.redis").RedisStore(place)
    return store


def _refuse(url: str, wrong: object, why: str) -> None:
    if wrong:
        scheme = url.partition(":")[0]  # the rest might hold a password that was meant for another store
        raise ConfigurationError([f"the store's URL {scheme}://... cannot be used: {why}; the forms are {_FORMS}"])


def _flag(url: str, options: dict[str, str], name: str) -> bool:
    value = options.pop(name, "false")
    _refuse(url, value not in ("true", "false"), f"{name} is true or false")
    return value == "true"
