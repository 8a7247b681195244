"""What the tests of operations get."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.operation.downstream import Downstream, downstream


@pytest.fixture
def other_side(tmp_path) -> Iterator[Downstream]:
    """The service that the steps call."""
    with downstream(tmp_path) as service:
        yield service
