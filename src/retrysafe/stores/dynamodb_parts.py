"""What is too large for the item of a record, in items of its own: its parts.

Parts are put *before* the record refers to them, and removed after it no longer does; who reads in between looks
again. So no record refers to what is not there yet; what no record refers to is deleted by the service in time.
They outlive what they belong to by a day, so that nobody who reads late misses them. The parts of a request and a
journal live as long as their record, which may go on from attempt to attempt: they are dated anew with it, once an
hour at most.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress

from retrysafe.errors import StoreError
from retrysafe.stores.dynamodb_items import (
    KEEP_PART,
    KEY,
    Item,
    Value,
    bytes_of,
    cut,
    kept_until,
    keys_of,
    mentioned,
    names_of_parts,
    part_keys,
)
from retrysafe.stores.dynamodb_table import Table

LOOKS_MAX = 3  # times that a record is read again, because its parts went meanwhile
PART_GRACE_MS = 86_400_000
_HOUR_MS = 3_600_000


class Parts:
    """The parts of the records of one table.

    Args:
        table: where they are.
    """

    def __init__(self, table: Table) -> None:
        self._table = table

    def put(self, content: bytes, of: str, end_ms: int) -> dict[str, Value]:
        """Put a content into items of its own, until so long after its end; how a record refers to them.

        Args:
            content: of any size.
            of: which content of a record it is.
            end_ms: until when it is needed, by the store's clock.
        """
        parts_id = secrets.token_bytes(16)
        pieces = cut(content)
        for key, piece in zip(keys_of(parts_id, len(pieces)), pieces, strict=True):
            self._table.put(kept_until(end_ms + PART_GRACE_MS) | {KEY: key, "response": piece})
        its_id, its_number = names_of_parts(of)
        return {its_id: parts_id, its_number: len(pieces)}

    def whole(
        self, record_id: bytes, item: Item | None, of: Sequence[str]
    ) -> tuple[Item, dict[str, bytes | None]] | None:
        """An item, or what has become of it meanwhile, and its contents, wherever they are; None if there is none.

        Args:
            record_id: of the record.
            item: as it was read.
            of: which contents are wanted.
        """
        for _ in range(LOOKS_MAX):
            if item is None:
                return None
            pieces = {name: [self._table.read(key) for key in part_keys(item, name)] for name in of}
            if not any(None in some for some in pieces.values()):
                break
            before, item = item, self._table.read(record_id)
            if item is not None and all(part_keys(item, name) == part_keys(before, name) for name in of):
                break  # somebody deleted what is ours: what is left is nothing that anybody would take for it
        if item is None:
            return None
        return item, {name: _joined(some) if some else bytes_of(item, name) for name, some in pieces.items()}

    def remove(self, item: Item, of: Sequence[str]) -> None:
        """Delete the parts that a record had; where that fails, the service does it in time."""
        for name in of:
            for key in part_keys(item, name):
                with suppress(StoreError):
                    self._table.remove(key)

    def keep_on(self, item: Item, of: Sequence[str], was_until_ms: int, until_ms: int) -> None:
        """Date the parts of a record anew if its own date has come to another hour; where that fails, next time.

        Args:
            item: the record as it was.
            of: which of its contents go on.
            was_until_ms: until when the record was kept.
            until_ms: until when it is kept.
        """
        if was_until_ms // _HOUR_MS == until_ms // _HOUR_MS:
            return
        keeping = mentioned(kept_until(until_ms + PART_GRACE_MS), **KEEP_PART)
        for name in of:
            for key in part_keys(item, name):
                with suppress(StoreError):
                    self._table.update(key, keeping)


def _joined(pieces: Sequence[Item | None]) -> bytes:
    return b"".join(bytes_of(piece, "response") or b"" for piece in pieces if piece)
