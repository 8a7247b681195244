"""The schema as migrations: their order, and which release may run on what."""

from __future__ import annotations

import pytest

from retrysafe.stores.migrations import Migration, due, migrations_of, needed

FIRST, ADDS, DROPS, ADDS_MORE = (
    Migration(1, "records", ""),
    Migration(2, "adds", ""),
    Migration(3, "drops", "", after=True),
    Migration(4, "adds_more", ""),
)


def test_migrations_are_in_order():
    """They are numbered without a gap, each says when it is to be gone through, and the first makes the tables."""
    migrations = migrations_of("sqlite")
    assert [migration.number for migration in migrations] == list(range(1, len(migrations) + 1))
    assert str(migrations[0]) == "0001 before the deployment: records"
    assert "CREATE TABLE records" in migrations[0].script


@pytest.mark.parametrize(("migrations", "last"), [
    ((), 0),
    ((FIRST,), 1),
    ((FIRST, ADDS, DROPS), 2),
    ((FIRST, ADDS, DROPS, ADDS_MORE), 4),
])  # fmt: skip
def test_opening_goes_to_the_last_migration_before(migrations, last):
    """What is after the last deployment waits; what is after the one before that is taken along."""
    assert due(migrations) == last


@pytest.mark.parametrize(("gone", "must_know"), [(0, 0), (1, 1), (2, 1), (3, 3), (4, 3)])
def test_last_release_runs_until_the_migration_after(gone, must_know):
    """A migration that only adds need not be known; one that takes away must be."""
    assert needed((FIRST, ADDS, DROPS, ADDS_MORE), gone) == must_know
