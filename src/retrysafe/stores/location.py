"""A store from its URL."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from retrysafe.errors import ConfigurationError
from retrysafe.stores.contract import Store
from retrysafe.stores.memory import MemoryStore
from retrysafe.stores.sqlite import SqliteStore

_FORMS = "memory://, sqlite:///relative.db, sqlite:////absolute/path.db, postgresql://user@host/database"


def open_store(url: str) -> Store:
    """The store that a URL names. It touches nothing until its `open` is called.

    Args:
        url: `memory://`; `sqlite:///relative.db` or `sqlite:////absolute/path.db`, with `?force=true`
            for a file on a network file system that only one host ever opens;
            `postgresql://user:password@host:port/database`, with `?schema=name` for where the tables are, and
            `?portable=true` for other engines that speak this protocol.

    Raises:
        ConfigurationError: no store has such a URL; the message names those that there are.
    """
    parts = urlsplit(url)
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
        case "postgresql" | "postgres":
            store = _postgres(url, options)
        case scheme:
            raise ConfigurationError([f'no store has the scheme "{scheme}"; use one of {_FORMS}'])
    _refuse(url, options or parts.fragment, f"unknown: {', '.join(options) or parts.fragment}")
    return store


def _postgres(url: str, options: dict[str, str]) -> Store:
    try:
        from retrysafe.stores.postgres import OPTIONS, PostgresStore  # noqa: PLC0415 - needs an extra
    except ModuleNotFoundError as error:
        wanted = f"postgresql:// needs {error.name}: pip install 'retrysafe[postgres]'"
        raise ConfigurationError([wanted]) from error
    schema, portable = options.pop("schema", "retrysafe"), _flag(url, options, "portable")
    passed_on = {name: options.pop(name) for name in OPTIONS if name in options}
    return PostgresStore(urlsplit(url)._replace(query=urlencode(passed_on)).geturl(), schema=schema, portable=portable)


def _refuse(url: str, wrong: object, why: str) -> None:
    if wrong:
        scheme = url.partition(":")[0]  # the rest might hold a password that was meant for another store
        raise ConfigurationError([f"the store's URL {scheme}://... cannot be used: {why}; the forms are {_FORMS}"])


def _flag(url: str, options: dict[str, str], name: str) -> bool:
    value = options.pop(name, "false")
    _refuse(url, value not in ("true", "false"), f"{name} is true or false")
    return value == "true"
