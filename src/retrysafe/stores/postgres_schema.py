"""The schema in the database: made, upgraded, agreed on.

Upgrades are numbered scripts. Each says in its first line the `oldest`: how many scripts a release has to
know to work with what comes out. A script that only adds leaves it as it is, so that the release before
runs on while processes are exchanged; a script that takes away goes into the release after, and raises it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources

from retrysafe.errors import StoreUnavailable, StoreUnusable
from retrysafe.stores.contract import agree_on_secret
from retrysafe.stores.lanes import CONFLICTS_MAX
from retrysafe.stores.postgres_session import PostgresSession, refuse_newer

# ruff: noqa: S608 - the name of the schema is quoted

MIGRATION_LOCK = "10s"

_ABSENT = ("42P01", "3F000")
_MADE_MEANWHILE = ("23505", "42P06", "42P07", "40001", "40P01")


def scripts() -> tuple[str, ...]:
    """The schema, as SQL scripts in the order in which a database goes through them."""
    folder = resources.files("retrysafe.stores") / "schema" / "postgres"
    found = sorted((script for script in folder.iterdir() if script.name.endswith(".sql")), key=lambda s: s.name)
    return tuple(script.read_text("utf-8") for script in found)


async def bring_up_to_date(session: PostgresSession, upgrades: Sequence[str]) -> None:
    """Make the schema, or upgrade it. Of processes that start together, one does it and the rest find it done.

    Raises:
        StoreUnusable: it is newer than this release can work with, or another application's.
        Exception: what `session.judge` understands.
    """
    for _ in range(CONFLICTS_MAX):
        try:
            version = await _version(session)
            if version >= len(upgrades):
                return
            await _upgrade(session, upgrades)
        except Exception as error:
            if getattr(error, "sqlstate", None) not in _MADE_MEANWHILE:
                raise
    raise StoreUnavailable(f"{session.place.name}: its schema is being made by too many at once; try again")


async def agree(session: PostgresSession, given: bytes | None) -> bytes:
    """Agree on the secret, see `stores.contract`: agreed once, by whoever writes first, and only read ever after."""
    meta = f"{session.place.statements.schema}.meta"
    for _ in range(CONFLICTS_MAX):
        ((held, check),) = await session.fetch(f"SELECT secret, secret_check FROM {meta}")
        secret, to_hold, new_check = agree_on_secret(given, held, check)
        if check is not None or await session.fetch(
            f"UPDATE {meta} SET secret = $1::bytea, secret_check = $2::bytea"
            " WHERE secret_check IS NULL RETURNING only_row",
            to_hold,
            new_check,
        ):
            return secret
    raise StoreUnavailable(f"{session.place.name}: no secret could be agreed on; try again")


async def _version(session: PostgresSession, locking: str = "") -> int:
    """How many scripts the schema has gone through; 0 if it is not there."""
    place = session.place
    try:
        ((version, oldest),) = await session.fetch(
            f"SELECT version, oldest FROM {place.statements.schema}.meta{locking}"
        )
    except Exception as error:
        if getattr(error, "sqlstate", None) in _ABSENT:
            return 0
        raise
    refuse_newer(place, oldest)
    return int(version)


async def _upgrade(session: PostgresSession, upgrades: Sequence[str]) -> None:
    """Apply what is missing, in one transaction."""
    statements = session.place.statements
    await session.script("BEGIN")
    try:
        if not statements.portable:
            await session.script(f"SET LOCAL lock_timeout = '{MIGRATION_LOCK}'")
        done = await _made(session)
        for script in upgrades[done:]:
            await session.script(script.replace("{schema}", statements.schema))
        oldest = max(map(oldest_of, upgrades))
        await session.script(f"UPDATE {statements.schema}.meta SET version = {len(upgrades)}, oldest = {oldest}")
        await session.script("COMMIT")
    except BaseException:
        if session.connected:
            await session.script("ROLLBACK")
        raise


async def _made(session: PostgresSession) -> int:
    """How many scripts are done, with the right to do the next; the schema itself is there after this."""
    statements = session.place.statements
    name = statements.schema.strip('"')
    if not await session.fetch("SELECT 1 FROM pg_namespace WHERE nspname = $1::text", name):
        await session.script(f"CREATE SCHEMA {statements.schema}")
        return 0
    if not await session.fetch(
        "SELECT 1 FROM information_schema.tables WHERE table_schema = $1::text AND table_name = 'meta'", name
    ):
        return 0
    return await _version(session, " FOR UPDATE")


def oldest_of(script: str) -> int:
    """What a script says of the releases that can work with its outcome.

    Raises:
        StoreUnusable: it says nothing.
    """
    first = re.match(r"-- oldest: (\d+)\n", script)
    if first is None:
        raise StoreUnusable("a script of the schema does not say which releases can work with its outcome")
    return int(first[1])
