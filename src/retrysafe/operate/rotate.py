"""Encrypt every stored response with the first key of the ring, beside live traffic (contract R110).

Each response is exchanged by compare-and-set, so that whatever happens to its record meanwhile wins.
A few at a time are in memory, whatever their number and size.

Requests and journals are not exchanged: they go when their record is completed or forgotten, and an owner may be at
work with them. Those that the first key does not open are counted: as long as there is one, its key is needed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from enum import Enum
from typing import TypeVar

from retrysafe.encryption import KeyRing
from retrysafe.protocol.observing import is_observed
from retrysafe.protocol.snapshot import Unreadable, sealed, unsealed
from retrysafe.protocol.states import UNFINISHED
from retrysafe.protocol.transitions import ListRecords, ListResponses, Read, ReadDetails, ReplaceResponseIfSame
from retrysafe.stores.contract import Store
from retrysafe.value import value

T = TypeVar("T")

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
        waiting: records that are not completed, and have a request or a journal that the first key does not open.
    """

    encrypted: int
    current: int
    overtaken: int
    unreadable: int
    waiting: int = 0


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
    return replace(_rotated(fates), waiting=await _count_waiting(store, ring))


async def _count_waiting(store: Store, ring: KeyRing) -> int:
    waiting = 0
    after: bytes | None = b""
    seen: set[bytes] = set()  # a store may list a record twice
    while after is not None:
        page = await store.submit(ListRecords(UNFINISHED, after=after, batch_max=PAGE))
        kept = [listed for listed in page.records if not is_observed(listed.record.route)]  # counts are in the clear
        record_ids = [listed.record_id for listed in kept if listed.record_id not in seen]
        seen.update(record_ids)
        for some in _batches(record_ids):
            waiting += sum(await asyncio.gather(*(_waits(store, ring, record_id) for record_id in some)))
        after = page.next_after
    return waiting


async def _waits(store: Store, ring: KeyRing, record_id: bytes) -> bool:
    details = await store.submit(ReadDetails(record_id))
    return any(content is not None and not ring.is_current(content) for content in (details.request, details.journal))


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


def _batches(some: Sequence[T]) -> Iterator[Sequence[T]]:
    for at in range(0, len(some), AT_ONCE):
        yield some[at : at + AT_ONCE]


def _rotated(fates: Counter[_Fate]) -> Rotated:
    return Rotated(*(fates[fate] for fate in _Fate))


def document(done: Rotated) -> dict[str, int]:
    """What was done, as JSON has it."""
    return {name: getattr(done, name) for name in ("encrypted", "current", "overtaken", "unreadable", "waiting")}


def line(done: Rotated) -> str:
    """What was done, for people."""
    return ", ".join(f"{name} {count}" for name, count in document(done).items())
