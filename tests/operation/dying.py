"""One order in a process of its own, whose handler ends as it is told: by its own death, perhaps.

python -m tests.operation.dying '{"kind": ..., "words": ..., "name": ..., "ending": ...}'
"""

from __future__ import annotations

import asyncio
import json
import sys

from retrysafe import Policy
from tests.doors.connections import ask, protected
from tests.operation.kinds import KINDS, place_of
from tests.operation.selling import Shop

POLICY = Policy(transactional=True, lease="500ms")


async def order(kind: str, words: dict[str, str], name: str, ending: str) -> None:
    """One request to a shop behind its door."""
    place = place_of(KINDS[kind][0], words)
    shop = Shop(place, kind)
    shop.ending = ending
    await ask(protected(shop, place.store, policy=POLICY), key=name, body=json.dumps({"name": name}).encode())


if __name__ == "__main__":
    asyncio.run(order(**json.loads(sys.argv[1])))
