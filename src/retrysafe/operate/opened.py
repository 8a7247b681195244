"""A store for as long as a command runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from retrysafe.errors import ConfigurationError, StoreUnavailable
from retrysafe.stores.contract import HasSchema, NeedsNoSchema, Store
from retrysafe.stores.location import open_store
from retrysafe.stores.memory import MemoryStore


@contextmanager
def opened(url: str, secret: bytes | None) -> Iterator[tuple[Store, bytes]]:
    """The store that a URL names, opened, and the secret that its keys are digested with.

    A store that no application has used yet is refused and not made: more likely the URL names another one,
    and a command that does its work on nothing would say that all is well.

    Args:
        url: of the store.
        secret: the operator's, if the applications have one.

    Raises:
        ConfigurationError: it is the memory of this process, in which nothing can be.
        StoreError: it is not there, cannot be reached, or must not be used.
    """
    store = open_store(url)
    if isinstance(store, MemoryStore):
        raise ConfigurationError(["memory:// is the records of one process alone; name the store of the applications"])
    try:
        if _is_new(store):
            raise StoreUnavailable(f"{store.name} is not there, and was not made; check the URL of the store")
        yield store, store.open(secret)
    finally:
        store.close()


def _is_new(store: Store) -> bool:
    """No application has used it yet."""
    if isinstance(store, HasSchema):
        return any(missing.number == 1 for missing in store.missing_migrations())
    return isinstance(store, NeedsNoSchema) and not store.is_in_use()
