"""How much of the suite runs over stores that are servers, and over the further ways to reach them.

The main way to each is taken whole in one colour. The other colour sends the same statements, and a further way differs
in the connection or in the server, and not in what is done: so `make test` takes of each of them one case in `ONE_IN`,
by a seed that it prints. Of DynamoDB, whose stand-in takes longer for a case than all other stores together, it takes
one in `ONE_IN_IMITATED`. `make prove` takes all of it.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from retrysafe.testing import store_contract
from retrysafe.testing.subject import COLOURS

ONE_IN, ONE_IN_IMITATED = 4, 8
_PROVES = bool(os.environ.get("RETRYSAFE_PROVE"))


def mainly(colour: str) -> tuple[str, ...]:
    """This one, and every one where everything is proved."""
    return tuple(COLOURS) if _PROVES else (colour,)


def main(make: Callable[..., Any], **options: Any) -> type[Any]:
    """The suite over the main way to a server: whole for an event loop, and some cases for threads."""
    suite: type[Any] = pytest.mark.main_way(store_contract(make, **options))
    return suite


def further(make: Callable[..., Any], colour: str, **options: Any) -> type[Any]:
    """The suite over a further way, of which some cases are taken; options are those of `store_contract`."""
    suite: type[Any] = pytest.mark.further_way(store_contract(make, colours=mainly(colour), **options))
    return suite


def imitated(make: Callable[..., Any], colour: str, **options: Any) -> type[Any]:
    """The suite over what stands in for a service, of which few cases are taken."""
    suite: type[Any] = pytest.mark.further_way(ONE_IN_IMITATED)(store_contract(make, colours=mainly(colour), **options))
    return suite


def is_taken(item: pytest.Item, seed: str) -> bool:
    """Whether a test is: of a further way, and of the second colour of a main way, one in so many."""
    is_second = item.get_closest_marker("main_way") is not None and "[blocking" in item.name
    further = item.get_closest_marker("further_way")
    if _PROVES or not (is_second or further):
        return True
    one_in: int = further.args[0] if further and further.args else ONE_IN
    return zlib.crc32(f"{seed} {item.nodeid}".encode()) % one_in == 0
