"""Bring the schema of a store up to date, or say what that would take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from retrysafe.stores.contract import HasSchema
from retrysafe.stores.location import open_store
from retrysafe.stores.migrations import Migration


def missing(url: str) -> Sequence[Migration]:
    """The migrations that a store has not gone through; nothing is changed or made.

    Args:
        url: of the store. One without tables has no migrations.

    Raises:
        StoreError: it cannot be reached, or must not be used.
    """
    store = open_store(url)
    return store.missing_migrations() if isinstance(store, HasSchema) else ()


def migrate(url: str) -> Sequence[Migration]:
    """Go through every missing migration, those after a deployment too; answered by these.

    Raises:
        StoreError: it cannot be reached, or must not be used.
    """
    store = open_store(url)
    return store.migrate() if isinstance(store, HasSchema) else ()


def script(migrations: Sequence[Migration]) -> Iterator[str]:
    """Migrations as lines of SQL, for people who go through them by other means."""
    for migration in migrations:
        yield f"-- {migration}"
        yield from migration.script.rstrip("\n").split("\n")
