"""A store from its URL: which module knows what the rest of the URL means."""

from __future__ import annotations

from importlib import import_module

from retrysafe.errors import ConfigurationError
from retrysafe.stores.contract import Store
from retrysafe.stores.url import StoreUrl, UnusableUrl

_MODULES = {
    "memory": "memory",
    "sqlite": "sqlite",
    "postgresql": "postgres",
    "postgres": "postgres",
    "mysql": "mysql",
    "redis": "redis",
    "rediss": "redis",
    "redis+sentinel": "redis",
    "rediss+sentinel": "redis",
    "redis+cluster": "redis",
    "rediss+cluster": "redis",
    "dynamodb": "dynamodb",
}
"""By scheme, the module whose `store_of` makes a store of a URL. It is imported when it is wanted: it may need an
extra, which it then names."""

_FORMS = (
    "memory://, sqlite:///relative.db, sqlite:////absolute/path.db, postgresql://user@host/database, "
    "mysql://user@host:port/database, redis://host:6379/0, dynamodb://table?region=name"
)


def open_store(url: str) -> Store:
    """The store that a URL names. It touches nothing until its `open` is called.

    Args:
        url: `memory://`; `sqlite:///relative.db` or `sqlite:////absolute/path.db`; `postgresql://`, `mysql://`,
            `redis://` and its like, or `dynamodb://`. What follows is said where `store_of` of that module is.

    Raises:
        ConfigurationError: no store has such a URL; the message names those that there are. Or the libraries of
            the store are not installed; the message says what to install.
    """
    scheme = url.partition(":")[0]  # the rest might hold a password that was meant for another store
    try:
        parts = StoreUrl(url)
        if parts.scheme not in _MODULES:
            raise ConfigurationError([f'no store has the scheme "{parts.scheme}"; use one of {_FORMS}'])
        store: Store = import_module(f"retrysafe.stores.{_MODULES[parts.scheme]}").store_of(parts)
    except UnusableUrl as why:
        fault = f"the store's URL {scheme}://... cannot be used: {why}; the forms are {_FORMS}"
        raise ConfigurationError([fault]) from None
    return store
