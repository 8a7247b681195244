"""Databases with many live records, made by copying a real one: what does a new key cost among them?"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from bench.engines import PostgresDatabase

SIZES: Mapping[str, int] = {"few": 10_000, "many": 5_000_000}


def fill(database: PostgresDatabase, count: int) -> None:
    """Copy the one completed record that is there, under random ids, until there are so many.

    In the order of their ids, which is quick; requests come with new ones, which are in no order.
    """
    print(f"bench: filling a database with {count:,} records", file=sys.stderr, flush=True)
    with database.connect() as connection:
        columns = [
            str(name)
            for (name,) in connection.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_schema = 'retrysafe'"
                " AND table_name = 'records' AND column_name <> 'record_id' AND is_generated = 'NEVER'"
            )
        ]
        names = ", ".join(f'"{name}"' for name in columns)
        statement = (
            f"INSERT INTO retrysafe.records (record_id, {names}) SELECT new.id, {names} FROM"  # noqa: S608 - names of the schema
            " (SELECT sha256(number::text::bytea) AS id FROM generate_series(1, %s) AS number ORDER BY 1) AS new,"
            " (SELECT * FROM retrysafe.records WHERE state = 'completed' LIMIT 1) AS one"
        )
        connection.execute(statement.encode(), (count,))
        connection.execute("VACUUM ANALYZE retrysafe.records")
        connection.execute("CHECKPOINT")
