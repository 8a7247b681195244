"""How much of the suite runs over the further ways to reach a store.

The main way to each store is taken whole. A further way differs from it in the connection or in the server, and not in
what is done: so `make test` takes of each of them one colour, and of that one case in `ONE_IN`, by a seed that it
prints. So it does with DynamoDB, whose stand-in takes longer for a case than all other stores together. `make prove`
takes all of it.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from retrysafe.testing import store_contract
from retrysafe.testing.subject import COLOURS

ONE_IN = 3
_PROVES = bool(os.environ.get("RETRYSAFE_PROVE"))


def mainly(colour: str) -> tuple[str, ...]:
    """This one, and every one where everything is proved."""
    return tuple(COLOURS) if _PROVES else (colour,)


def further(make: Callable[..., Any], colour: str, **options: Any) -> type[Any]:
    """The suite over a further way, of which some cases are taken; options are those of `store_contract`."""
    suite: type[Any] = pytest.mark.further_way(store_contract(make, colours=mainly(colour), **options))
    return suite


def is_taken(item: pytest.Item, seed: str) -> bool:
    """Whether a test is: of a further way, one in so many."""
    is_further = item.get_closest_marker("further_way") is not None
    return _PROVES or not is_further or zlib.crc32(f"{seed} {item.nodeid}".encode()) % ONE_IN == 0
