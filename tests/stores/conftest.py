"""Of the second colour of a store that is a server, and of the further ways to it, some cases are taken."""

from __future__ import annotations

import os

import pytest

from tests.stores.ways import is_taken


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the others out, and say how many; but whoever names a test gets it."""
    if any("::" in argument for argument in config.args):
        return
    seed = os.environ["RETRYSAFE_CASES"]
    left = [item for item in items if not is_taken(item, seed)]
    if left:
        items[:] = [item for item in items if is_taken(item, seed)]
        config.hook.pytest_deselected(items=left)
