"""Expire and forget the records whose time has come."""

from __future__ import annotations

from collections.abc import Callable

from retrysafe.protocol.transitions import Purge, Purged
from retrysafe.stores.contract import Store


def purge(store: Store, told: Callable[[Purged], None]) -> Purged:
    """Purge in batches, each short enough to stand beside live traffic, until nothing more is due.

    Args:
        store: opened.
        told: called after each batch with what was done up to then.

    Raises:
        StoreError: the store failed; what was purged by then stays so.
    """
    done = Purged(expired=0, forgotten=0, more=True)
    while done.more:
        batch = store.perform(Purge())
        done = Purged(done.expired + batch.expired, done.forgotten + batch.forgotten, batch.more)
        told(done)
    return done
