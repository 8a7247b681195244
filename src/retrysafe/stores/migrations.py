"""The schema of a store as numbered migrations, each before or after a deployment.

A migration *before* only adds: code of the last release, which does not know it, runs on. A migration *after* is for
when no process of the last release runs any more; from then on that code is refused. So a deployment is:
the migrations before, the new processes in place of the old ones, the migrations after.

A store goes through its migrations up to the last one before by itself when it is opened (`due`); those after
wait for an operator. This release runs with and without them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources

from retrysafe.value import value

_NAME = re.compile(r"(?P<number>\d{4})_(?P<when>pre|post)_(?P<name>\w+)\.sql")


@value
class Migration:
    """One migration.

    Attributes:
        number: its place, counted from 1.
        name: what it is about.
        script: SQL.
        after: it is to be gone through after the deployment, when the last release no longer runs.
    """

    number: int
    name: str
    script: str
    after: bool = False

    def __str__(self) -> str:
        return f"{self.number:04} {'after' if self.after else 'before'} the deployment: {self.name}"


def migrations_of(kind: str) -> tuple[Migration, ...]:
    """The migrations of one kind of store, in their order: `schema/KIND/NNNN_pre_NAME.sql` or `NNNN_post_NAME.sql`.

    Args:
        kind: name of the folder.
    """
    folder = resources.files("retrysafe.stores") / "schema" / kind
    found: list[Migration] = []
    for script in sorted(folder.iterdir(), key=lambda script: script.name):
        parsed = _NAME.fullmatch(script.name)
        if parsed is None or int(parsed["number"]) != len(found) + 1:
            raise AssertionError(f"schema/{kind}/{script.name} is no migration, or one is missing before it")
        migration = Migration(len(found) + 1, parsed["name"], script.read_text("utf-8"), after=parsed["when"] == "post")
        found.append(migration)
    return tuple(found)


def due(migrations: Sequence[Migration]) -> int:
    """The number of the migration up to which opening brings a store: the last one before the deployment."""
    return max((migration.number for migration in migrations if not migration.after), default=0)


def needed(migrations: Sequence[Migration], gone: int) -> int:
    """The number of the migration that code must know to run on a store that has gone through `gone` of these.

    It is the last one after a deployment, and at least the first of all: that makes the tables.
    """
    return max(
        (migration.number for migration in migrations[:gone] if migration.after or migration.number == 1), default=0
    )
