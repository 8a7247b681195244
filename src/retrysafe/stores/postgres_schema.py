"""The schema in the database: made, brought through its migrations, agreed on.

In the scripts of `schema/postgres`, `{schema}` stands for the schema of the store, quoted. Here they are completed:
with that name, and with what records that they have been gone through. So what an operator prints and goes through by
other means is what the store itself would have done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from retrysafe.errors import StoreUnavailable
from retrysafe.stores.contract import agree_on_secret
from retrysafe.stores.lanes import CONFLICTS_MAX
from retrysafe.stores.migrations import Migration, needed
from retrysafe.stores.postgres_session import PostgresSession, refuse_newer

# ruff: noqa: S608 - the name of the schema is quoted

MIGRATION_LOCK = "10s"

_THERE = (
    "SELECT EXISTS (SELECT 1 FROM pg_class WHERE relnamespace = pg_namespace.oid AND relname = 'meta')"
    " FROM pg_namespace WHERE nspname = $1::text"
)
_MADE_MEANWHILE = ("23505", "42P06", "42P07", "40001", "40P01")


async def missing(
    session: PostgresSession, migrations: Sequence[Migration], locking: str = ""
) -> tuple[Migration, ...]:
    """Those of the migrations that the schema has not gone through, completed; nothing is changed.

    Args:
        session: connected.
        migrations: all that this release knows, as they stand in their files.
        locking: ends the statement that looks, so that nobody else changes what it finds.

    Raises:
        StoreUnusable: the schema is newer than this release can work with, or another application's.
        Exception: what `session.judge` understands.
    """
    gone = await _gone_through(session, locking)
    those = migrations[gone or 0 :]
    return tuple(_completed(session, migrations, migration, anew=gone is None) for migration in those)


async def bring_up_to_date(
    session: PostgresSession, migrations: Sequence[Migration], last: int
) -> tuple[Migration, ...]:
    """Go through what is missing up to a migration. Of processes that start together, one does; the rest find it done.

    Args:
        session: connected.
        migrations: all that this release knows.
        last: the number of the last that is to be gone through.

    Returns:
        The migrations that were missing, up to that one.

    Raises:
        StoreUnusable: as for `missing`.
        Exception: what `session.judge` understands.
    """
    for _ in range(CONFLICTS_MAX):
        try:
            if not _until(last, await missing(session, migrations)):
                return ()
            return await _upgrade(session, migrations, last)
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


async def _upgrade(session: PostgresSession, migrations: Sequence[Migration], last: int) -> tuple[Migration, ...]:
    """Go through what is missing, in one transaction."""
    statements = session.place.statements
    await session.script("BEGIN")
    try:
        if not statements.portable:
            await session.script(f"SET LOCAL lock_timeout = '{MIGRATION_LOCK}'")
        those = _until(last, await missing(session, migrations, " FOR UPDATE"))
        for migration in those:
            await session.script(migration.script)
        await session.script("COMMIT")
    except BaseException:
        if session.connected:
            await session.script("ROLLBACK")
        raise
    return those


def _until(last: int, migrations: Sequence[Migration]) -> tuple[Migration, ...]:
    return tuple(migration for migration in migrations if migration.number <= last)


async def _gone_through(session: PostgresSession, locking: str) -> int | None:
    """How many migrations the schema has gone through: 0 if it has none of our tables, None if there is no schema.

    It is looked for first: inside a transaction, to ask for a table that is not there would end it.
    """
    schema = session.place.statements.schema
    there = await session.fetch(_THERE, schema.strip('"'))
    if not there:
        return None
    if not there[0][0]:
        return 0
    ((gone, must_know),) = await session.fetch(f"SELECT migrations, must_know FROM {schema}.meta{locking}")
    refuse_newer(session.place, must_know)
    return int(gone)


def _completed(
    session: PostgresSession, migrations: Sequence[Migration], migration: Migration, *, anew: bool
) -> Migration:
    """With the name of the schema, what says that it is done, and, for the first of all, the schema itself."""
    schema, number = session.place.statements.schema, migration.number
    before = f"CREATE SCHEMA {schema};\n\n" if anew and number == 1 else ""
    script = migration.script.rstrip("\n").replace("{schema}", schema)
    done = f"migrations = {number}, must_know = {needed(migrations, number)}"
    return replace(migration, script=f"{before}{script}\nUPDATE {schema}.meta SET {done};\n")
