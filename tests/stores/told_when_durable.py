"""A process that uses an SQLite store and says aloud when it asks and when it is answered; it is watched from outside.

Arguments: the path of the file, and the setting of `synchronous` to fall back to, if not the store's own.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from typing import Any

from retrysafe.model import Claim
from retrysafe.protocol.effects import Transition
from retrysafe.protocol.transitions import ClaimIfAbsent, CompleteIfHeld, KeepJournalIfHeld, ReleaseIfHeld, RenewIfHeld
from retrysafe.stores.sqlite import SqliteStore
from retrysafe.stores.sqlite_file import SqliteFile

OUT = 1
HOUR_MS = 3_600_000


def life(number: int) -> list[Transition[Any]]:
    """The life of one record that ends with an answer, and of one that is released."""
    first, second = number.to_bytes(32, "big"), (1_000 + number).to_bytes(32, "big")
    token = b"t" * 16
    return [
        ClaimIfAbsent(first, token, b"\1print", HOUR_MS, HOUR_MS),
        KeepJournalIfHeld(Claim(first, token, 1), b"journal" * 100),
        RenewIfHeld(Claim(first, token, 1), HOUR_MS, HOUR_MS),
        CompleteIfHeld(Claim(first, token, 1), b"answer" * 1_000, HOUR_MS, HOUR_MS),
        ClaimIfAbsent(second, token, b"\1print", HOUR_MS, HOUR_MS),
        ReleaseIfHeld(Claim(second, token, 1), HOUR_MS),
    ]


def tell(what: str) -> None:
    """One line, in one system call."""
    os.write(OUT, f"{what}\n".encode())


async def _submitted(store: SqliteStore, transition: Transition[Any]) -> None:
    await store.submit(transition)


def _weaken(synchronous: str) -> None:
    """Plant the fault: another setting after the store's own."""
    configured = SqliteFile._configure

    def weakened(file: SqliteFile, connection: sqlite3.Connection) -> None:
        configured(file, connection)
        connection.execute(f"PRAGMA synchronous = {synchronous}")

    setattr(SqliteFile, "_configure", weakened)  # noqa: B010 - a method cannot be assigned for the type checker


def main() -> None:
    """Ask for each transition by itself, from a thread and from an event loop."""
    path, weaker = sys.argv[1], sys.argv[2:]
    if weaker:
        _weaken(weaker[0])
    store = SqliteStore(path)
    store.open(b"s" * 32)
    for number in range(6):
        for transition in life(number):
            tell("asked")
            if number % 2:
                store.perform(transition)
            else:
                asyncio.run(_submitted(store, transition))
            tell("answered")
    store.close()


if __name__ == "__main__":
    main()
