"""A store for as long as a command runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from retrysafe.stores.contract import Store
from retrysafe.stores.location import open_store


@contextmanager
def opened(url: str, secret: bytes | None) -> Iterator[tuple[Store, bytes]]:
    """The store that a URL names, opened, and the secret that its keys are digested with.

    Args:
        url: of the store.
        secret: the operator's, if the applications have one.

    Raises:
        StoreError: it cannot be reached, or must not be used.
    """
    store = open_store(url)
    try:
        yield store, store.open(secret)
    finally:
        store.close()
