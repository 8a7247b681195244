"""`kill -9` around the commit: before it nothing has happened and a retry runs; after it a retry gets the answer."""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path

import pytest

from tests import forked
from tests.doors.connections import ask, protected
from tests.drive.harness import PATIENCE_S, in_loop
from tests.gateway.processes import environment
from tests.operation.dying import POLICY
from tests.operation.kinds import KINDS, PLACES
from tests.operation.selling import Shop

ROOT = Path(__file__).parents[2]
# What an adapter adds to its driver makes no difference to a death, so that one of these stands for the rest.
MOMENTS = [
    *((kind, "die before the commit") for kind in KINDS if kind.endswith(("-driver", "asyncpg", "-session", "django"))),
    *((kind, "die after the commit") for kind in KINDS if kind.endswith(("-driver", "asyncpg"))),
]


@pytest.mark.parametrize(("kind", "ending"), MOMENTS)
@in_loop
async def test_the_process_dies(kind, ending, tmp_path):
    """One order in the end, never two; and before the commit none."""
    place, name = PLACES[KINDS[kind][0]](tmp_path), uuid.uuid4().hex
    told = json.dumps({"kind": kind, "words": place.words, "name": name, "ending": ending})
    died = await asyncio.to_thread(forked.run, "tests.operation.dying", told, cwd=ROOT, env=environment())
    assert died.returncode == -9, died.stderr
    committed = ending == "die after the commit"
    assert place.orders(name) == int(committed)

    shop = Shop(place, kind)
    door = protected(shop, place.store, policy=POLICY)
    answer = await _settled(door, name)
    assert (answer.status, answer.replayed, shop.calls) == (201, committed, 1 - int(committed))
    assert (await _settled(door, name)).body == answer.body
    assert place.orders(name) == 1
    await door.close()
    place.store.close()


async def _settled(door, name):
    """The answer, once the claim of the dead has lapsed."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = await ask(door, key=name, body=json.dumps({"name": name}).encode())
            if answer.code != "in-progress":
                return answer
            await asyncio.sleep(0.02)
