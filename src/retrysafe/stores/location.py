"""A store from its URL."""

from __future__ import annotations

import re
from importlib import import_module
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from retrysafe.errors import ConfigurationError
from retrysafe.stores.contract import Store
from retrysafe.stores.memory import MemoryStore
from retrysafe.stores.mysql_server import Address
from retrysafe.stores.sqlite import SqliteStore

_FORMS = (
    "memory://, sqlite:///relative.db, sqlite:////absolute/path.db, postgresql://user@host/database, "
    "mysql://user@host:port/database, redis://host:6379/0, dynamodb://table?region=name"
)


def open_store(url: str) -> Store:
    """The store that a URL names. It touches nothing until its `open` is called.

    Args:
        url: `memory://`; `sqlite:///relative.db` or `sqlite:////absolute/path.db`, with `?force=true`
            for a file on a network file system that only one host ever opens;
            `postgresql://user:password@host:port/database`, with `?schema=name` for where the tables are, and
            `?portable=true` for other engines that speak this protocol;
            `mysql://user:password@host:port/database`, with `?tls=true`, and `&tls_ca=FILE` if the
            system does not trust the server's certificate; `redis://host:6379/0` and its like, as in
            docs/how-to/redis.md; `dynamodb://TABLE`, with `region=`, `endpoint_url=`, and `create=false` if the
            table must be there already.

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
        case "postgresql" | "postgres":
            store = _postgres(url, options)
        case "mysql":
            store = _mysql(url, parts, options)
        case "dynamodb":
            _refuse(url, "@" in parts.netloc, "boto3 takes credentials from its own places")
            _refuse(url, not parts.netloc or parts.path.strip("/"), "it names one table")
            store = _dynamodb(url, parts.netloc, options)
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


def without_password(url: str) -> str:
    """A store's URL as it may be shown: a password in it, wherever a store may have one, is replaced."""
    without = re.sub(r"://([^:@/?#]*):.*@", r"://\1:(hidden)@", url)
    return re.sub(r"(password=)[^&]*", r"\1(hidden)", without)


def _mysql(url: str, parts: SplitResult, options: dict[str, str]) -> Store:
    from retrysafe.stores.mysql import MysqlStore  # noqa: PLC0415 - needs an extra

    database = unquote(parts.path[1:])
    try:
        port = parts.port or 3306
    except ValueError:
        port = 0
    _refuse(url, not port, "its port is no number up to 65535")
    _refuse(url, not parts.hostname or not parts.username, "it names no user or no host")
    _refuse(url, not database or "/" in database, "it names no database")
    tls_ca = options.pop("tls_ca", None)
    tls = _flag(url, options, "tls")
    _refuse(url, tls_ca and not tls, "tls_ca is of use with tls=true")
    return MysqlStore(
        Address(
            host=parts.hostname or "",
            port=port,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            database=database,
            tls=tls,
            tls_ca=tls_ca,
        )
    )


def _redis(url: str) -> Store:
    """Imported when it is wanted: it needs the libraries of its extra."""
    place = import_module("retrysafe.stores.redis_place").place_of(url)
    store: Store = import_module("retrysafe.stores.redis").RedisStore(place)
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
