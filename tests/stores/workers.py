"""What the tests of several processes run in them: `python -m tests.stores.workers NAME ARGUMENT...`.

A worker says what it did on standard output, a line at a time, and only what was acknowledged to it.
"""

from __future__ import annotations

import asyncio
import random
import resource
import secrets
import sys

from retrysafe.errors import StoreUnavailable
from retrysafe.model import Claim
from retrysafe.protocol.transitions import ClaimIfAbsent, CompleteIfHeld
from retrysafe.stores.location import open_store
from retrysafe.stores.sqlite import SqliteStore


def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def store_at(place):
    return open_store(place) if "://" in place else SqliteStore(place)


def claiming(record_id):
    return ClaimIfAbsent(record_id, secrets.token_bytes(16), b"f", 600_000, 600_000)


def completing(claim, response=b"response"):
    return CompleteIfHeld(Claim(claim.record_id, claim.token, 1), response, 600_000, 600_000)


def race(path, keys):
    """Claim so many records in an order of its own, all at once; say which it won, in one line."""
    store = store_at(path)
    store.open()
    claims = [claiming(number.to_bytes(32)) for number in range(int(keys))]
    random.shuffle(claims)

    async def main():
        return await asyncio.gather(*map(store.submit, claims))

    say("ready")
    sys.stdin.readline()
    found = asyncio.run(main())
    won = [claim.record_id for claim, one in zip(claims, found, strict=True) if one.record.token == claim.token]
    say(*(int.from_bytes(record_id) for record_id in won))
    store.close()


def stream(path):
    """Claim and complete without end, sixteen at a time; say what was completed."""
    store = store_at(path)
    store.open()

    async def one():
        while True:
            claim = claiming(secrets.token_bytes(32))
            await store.submit(claim)
            assert await store.submit(completing(claim, claim.record_id * 30))
            say(claim.record_id.hex())

    async def main():
        await asyncio.gather(*(one() for _ in range(16)))

    asyncio.run(main())


def first(path, rounds):
    """Open a store, each time that it is told to; say which secret it found."""
    for number in range(int(rounds)):
        store = SqliteStore(f"{path}.{number}")
        say("ready")
        sys.stdin.readline()
        say(store.open().hex())
        store.close()


def leave(path, records):
    """Submit so many claims, wait for none, close nothing, and end."""
    store = store_at(path)
    store.open()

    async def main():
        for number in range(int(records)):
            store.submit(claiming(number.to_bytes(32)))

    asyncio.run(main())


def fill(path):
    """Write until the disk is full, as far as this process may; then have more room, and go on. Say each time."""
    store = store_at(path)
    store.open()
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, most))
    for number in range(64):
        claim = claiming(number.to_bytes(32))
        try:
            store.perform(claim)
            store.perform(completing(claim, bytes(1 << 18)))
            say("completed", number)
        except StoreUnavailable:
            say("unavailable", number)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    store.close()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
