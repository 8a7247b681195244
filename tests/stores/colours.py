"""In which colours the suite runs over the further ways to reach a store.

The main way to each store is taken in both. A further way differs from it in the connection or in the server, and not
in what is done: so `make test` takes each of them in one colour, and `make prove` in both.
"""

from __future__ import annotations

import os

from retrysafe.testing.subject import COLOURS


def mainly(colour: str) -> tuple[str, ...]:
    """This one, and every one where everything is proved."""
    return tuple(COLOURS) if os.environ.get("RETRYSAFE_PROVE") else (colour,)
