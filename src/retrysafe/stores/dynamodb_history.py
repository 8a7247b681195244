"""The histories of the DynamoDB store: an item each, with a list of entries.

An entry is the time at which it is over, and its bytes. The item is kept until the last of them is over, and has to
fit into 400 KB; a history that is full takes no more until a purge has deleted what is over.
"""

from __future__ import annotations

import secrets
from typing import Any

from retrysafe.errors import StoreError, StoreUnavailable
from retrysafe.protocol.transitions import AddHistory
from retrysafe.stores.dynamodb_items import (
    HISTORY_ADDS,
    HISTORY_FORGET,
    HISTORY_TRIM,
    Item,
    Value,
    bytes_of,
    history_key,
    kept_until,
    mentioned,
)
from retrysafe.stores.dynamodb_table import Refused, Table

TRIES_MAX = 8
_DATE_BYTES = 8


def entries_of(item: Item | None) -> list[tuple[int, bytes]]:
    """When each entry is over, and the entry, in the order in which they were added."""
    dated = [bytes(one["B"]) for one in item["entries"]["L"]] if item else []
    return [(int.from_bytes(one[:_DATE_BYTES]), one[_DATE_BYTES:]) for one in dated]


def read(table: Table, record_id: bytes, now_ms: int) -> tuple[bytes, ...]:
    """The entries that are not over."""
    entries = entries_of(table.read(history_key(record_id)))
    return tuple(entry for forget_at_ms, entry in entries if forget_at_ms > now_ms)


def add(table: Table, addition: AddHistory, now_ms: int) -> bool:
    """Append an entry: one request, a second one where others are kept for longer."""
    key, forget_at_ms = history_key(addition.record_id), now_ms + addition.keep_ms
    write_id = secrets.token_bytes(16)
    values: dict[str, Value] = {
        **kept_until(forget_at_ms),
        "added": (_dated(forget_at_ms, addition.entry),),
        "nothing": (),
        "write_id": write_id,
    }
    for number_of_try in range(TRIES_MAX):
        answer = _append(table, key, mentioned(values, **HISTORY_ADDS[number_of_try % 2]))
        if not isinstance(answer, Refused):
            return True
        if answer.item is not None and bytes_of(answer.item, "write_id") == write_id:
            return True
    raise StoreUnavailable(f"DynamoDB table {table.name}: too many add to one history at once; try again")


def _append(table: Table, key: bytes, wanted: dict[str, Any]) -> Refused | Item:
    try:
        return table.update(key, wanted)
    except StoreError as error:
        if type(error) is not StoreError:  # it was not the values that were refused
            raise
        raise StoreError(f"{error}; this history is full, unless a purge deletes what is over of it") from error


def purge(table: Table, key: bytes, item: Item, now_ms: int) -> None:
    """Delete what is over of a history, unless somebody adds to it in the same moment."""
    kept = [(forget_at_ms, entry) for forget_at_ms, entry in entries_of(item) if forget_at_ms > now_ms]
    values: dict[str, Value] = {"seen_write_id": bytes_of(item, "write_id"), "write_id": secrets.token_bytes(16)}
    if not kept:
        table.delete(key, mentioned(values, **HISTORY_FORGET))
        return
    values["kept"] = tuple(_dated(*entry) for entry in kept)
    values["next_over_at_ms"] = min(forget_at_ms for forget_at_ms, _ in kept)
    table.update(key, mentioned(values, **HISTORY_TRIM))


def _dated(forget_at_ms: int, entry: bytes) -> bytes:
    return forget_at_ms.to_bytes(_DATE_BYTES) + entry
