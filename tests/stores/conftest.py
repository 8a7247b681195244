"""Of the further ways to a store some cases are taken."""

from __future__ import annotations

import os

import pytest

from tests.stores.ways import is_taken


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the others out, and say how many."""
    seed = os.environ["RETRYSAFE_CASES"]
    left = [item for item in items if not is_taken(item, seed)]
    if left:
        items[:] = [item for item in items if is_taken(item, seed)]
        config.hook.pytest_deselected(items=left)
