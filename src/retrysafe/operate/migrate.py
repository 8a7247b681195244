"""Bring the schema of a store up to date, or say what that would take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from retrysafe.stores.contract import HasSchema
from retrysafe.stores.location import open_store
from retrysafe.stores.steps import Step


def missing(url: str) -> Sequence[Step]:
    """The steps that a store has not gone through; nothing is changed or made.

    Args:
        url: of the store. One without tables has no steps.

    Raises:
        StoreError: it cannot be reached, or must not be used.
    """
    store = open_store(url)
    return store.missing_steps() if isinstance(store, HasSchema) else ()


def migrate(url: str) -> Sequence[Step]:
    """Go through every missing step, those after a deployment too; answered by these.

    Raises:
        StoreError: it cannot be reached, or must not be used.
    """
    store = open_store(url)
    return store.migrate() if isinstance(store, HasSchema) else ()


def script(steps: Sequence[Step]) -> Iterator[str]:
    """Steps as lines of SQL, for people who go through them by other means."""
    for step in steps:
        yield f"-- {step}"
        yield from step.script.rstrip("\n").split("\n")
