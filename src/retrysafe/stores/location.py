"""A store from its URL."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlsplit

from retrysafe.errors import ConfigurationError
from retrysafe.stores.contract import Store
from retrysafe.stores.memory import MemoryStore
from retrysafe.stores.sqlite import SqliteStore

_FORMS = "memory://, sqlite:///relative.db, sqlite:////absolute/path.db, dynamodb://table?region=name"


def open_store(url: str) -> Store:
    """The store that a URL names. It touches nothing until its `open` is called.

    Args:
        url: `memory://`; `sqlite:///relative.db` or `sqlite:////absolute/path.db`, with `?force=true`
            for a file on a network file system that only one host ever opens; `dynamodb://TABLE`, with `region=`,
            `endpoint_url=`, and `create=false` if the table must be there already.

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
        case "dynamodb":
            _refuse(url, "@" in parts.netloc, "boto3 takes credentials from its own places")
            _refuse(url, not parts.netloc or parts.path.strip("/"), "it names one table")
            store = _dynamodb(url, parts.netloc, options)
        case scheme:
            raise ConfigurationError([f'no store has the scheme "{scheme}"; use one of {_FORMS}'])
    _refuse(url, options or parts.fragment, f"unknown: {', '.join(options) or parts.fragment}")
    return store


def _dynamodb(url: str, table: str, options: dict[str, str]) -> Store:
    from retrysafe.stores.dynamodb import DynamoStore  # noqa: PLC0415 its driver is an extra

    create = _flag(url, options, "create", default="true")
    region, endpoint_url = options.pop("region", None), options.pop("endpoint_url", None)
    _refuse(url, "@" in (endpoint_url or ""), "endpoint_url has credentials in it")
    return DynamoStore(table, region=region, endpoint_url=endpoint_url, create=create)


def _refuse(url: str, wrong: object, why: str) -> None:
    if wrong:
        scheme = url.partition(":")[0]  # the rest might hold a password that was meant for another store
        raise ConfigurationError([f"the store's URL {scheme}://... cannot be used: {why}; the forms are {_FORMS}"])


def _flag(url: str, options: dict[str, str], name: str, default: str = "false") -> bool:
    value = options.pop(name, default)
    _refuse(url, value not in ("true", "false"), f"{name} is true or false")
    return value == "true"
