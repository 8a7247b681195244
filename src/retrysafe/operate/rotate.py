"""Encrypt every stored response with the first key of the ring, beside live traffic (contract R110).

Each response is exchanged by compare-and-set, so that whatever happens to its record meanwhile wins.
A few at a time are in memory, whatever their number and size.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from enum import Enum

from retrysafe.encryption import KeyRing
from retrysafe.protocol.effects import ListResponses, Read, ReplaceResponseIfSame, StoredHead
from retrysafe.protocol.snapshot import Unreadable, sealed, unsealed
from retrysafe.stores.contract import Store
from retrysafe.value import value

PAGE = 200
AT_ONCE = 16


class _Fate(Enum):
    ENCRYPTED = "encrypted"
    CURRENT = "current"
    OVERTAKEN = "overtaken"
    UNREADABLE = "unreadable"


@value
class Rotated:
    """What came of the stored responses.

    Attributes:
        encrypted: anew, with the first key.
        current: had it already.
        overtaken: were changed or deleted by somebody else meanwhile; whoever did has the keys too.
        unreadable: cannot be read with any key of the ring, or were changed by hand; left as they are.
    """

    encrypted: int
    current: int
    overtaken: int
    unreadable: int


async def rotate(store: Store, secret: bytes, ring: KeyRing, told: Callable[[Rotated], None]) -> Rotated:
    """Encrypt what is not encrypted, or with another key than the first.

    Args:
        store: opened.
        secret: of its key digests, which responses that are not encrypted are sealed with.
        ring: of keys; that of the running applications.
        told: called now and then with what was done up to then.

    Raises:
        StoreError: the store failed; what was done by then stays so.
    """
    fates: Counter[_Fate] = Counter()
    after: bytes | None = b""
    while after is not None:
        page = await store.submit(ListResponses(after, PAGE))
        stale = [stored for stored in page.responses if not ring.is_current(stored.head)]
        fates[_Fate.CURRENT] += len(page.responses) - len(stale)
        for some in _batches(stale):
            fates.update(await asyncio.gather(*(_encrypt(store, secret, ring, stored.record_id) for stored in some)))
            told(_rotated(fates))
        after = page.next_after
    return _rotated(fates)


async def _encrypt(store: Store, secret: bytes, ring: KeyRing, record_id: bytes) -> _Fate:
    found = await store.submit(Read(record_id))
    if found is None or found.record.response is None:
        return _Fate.OVERTAKEN
    seen = found.record.response
    if ring.is_current(seen):
        return _Fate.OVERTAKEN
    try:
        document = unsealed(seen, record_id, secret, ring)
    except Unreadable:
        return _Fate.UNREADABLE
    anew = sealed(document, record_id, secret, ring)
    done = await store.submit(ReplaceResponseIfSame(record_id, found.record.token, seen, anew))
    return _Fate.ENCRYPTED if done else _Fate.OVERTAKEN


def _batches(stale: list[StoredHead]) -> Iterator[list[StoredHead]]:
    for at in range(0, len(stale), AT_ONCE):
        yield stale[at : at + AT_ONCE]


def _rotated(fates: Counter[_Fate]) -> Rotated:
    return Rotated(*(fates[fate] for fate in _Fate))


def document(done: Rotated) -> dict[str, int]:
    """What was done, as JSON has it."""
    return {name: getattr(done, name) for name in ("encrypted", "current", "overtaken", "unreadable")}


def line(done: Rotated) -> str:
    """What was done, for people."""
    return ", ".join(f"{name} {count}" for name, count in document(done).items())
