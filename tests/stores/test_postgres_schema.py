"""The schema in the database: made once by however many, upgraded in steps, refused when it is newer."""

from __future__ import annotations

import re
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from retrysafe.errors import ConfigurationError, StoreUnavailable, StoreUnusable
from retrysafe.protocol.transitions import (
    AddHistory,
    AnswerCount,
    ClaimIfAbsent,
    CountAnswers,
    Purge,
    Read,
    ReadDetails,
    TakeStats,
)
from retrysafe.stores.migrations import Migration, migrations_of
from retrysafe.stores.postgres import PostgresStore
from tests.stores.postgres_server import server

KNOWN = migrations_of("postgres")
ADDS = Migration(len(KNOWN) + 1, "adds", "ALTER TABLE {schema}.records ADD COLUMN note text;\n")
TAKES_AWAY = Migration(len(KNOWN) + 2, "takes_away", "ALTER TABLE {schema}.records DROP COLUMN note;\n", after=True)
BREAKS = Migration(len(KNOWN) + 1, "breaks", "CREATE TABLE {schema}.half (x integer); DROP TABLE {schema}.other;\n")


@pytest.fixture
def schema():
    return f"t{secrets.token_hex(8)}"


@pytest.fixture
def make(schema):
    made = []

    def make(*more, **options):
        made.append(PostgresStore(server().url(), schema=schema, migrations=(*KNOWN, *more), **options))
        return made[-1]

    yield make
    for store in made:
        store.close()


def claiming():
    return ClaimIfAbsent(secrets.token_bytes(32), secrets.token_bytes(16), b"f", 60_000, 60_000)


def columns(schema, table="records"):
    with server().connect() as connection:
        rows = connection.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = %s AND table_name = %s",
            [schema, table],
        )
        return {name for (name,) in rows}


@pytest.mark.parametrize("portable", [False, True])
def test_stores_may_start_together(make, portable):
    """Eight find no schema: one makes it, all agree on the secret. Five times over."""
    for _ in range(5):
        name = f"t{secrets.token_hex(8)}"
        stores = [PostgresStore(server().url(), schema=name, portable=portable) for _ in range(8)]
        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(PostgresStore.open, stores))) == 1
        for store in stores:
            store.close()


def test_the_release_before_runs_on_a_schema_that_only_grew(make, schema):
    """After an upgrade that adds, what was open goes on, and the release before can be started still."""
    before, after = make(), make(ADDS)
    before.open()
    before.perform(claiming())
    after.open()
    assert "note" in columns(schema)
    claim = claiming()
    assert before.perform(claim).record.token == claim.token
    again = make()
    again.open()
    assert again.perform(Read(claim.record_id)).record.token == claim.token
    assert after.perform(Read(claim.record_id)).record.token == claim.token


def test_a_schema_that_lost_something_is_refused_by_the_release_before(make, schema):
    """After an upgrade that takes away, the release before says what to do, and the schema stays as it is."""
    newest = make(ADDS, TAKES_AWAY)
    newest.open()
    assert "note" in columns(schema)
    make().open()  # what is after the deployment waits, and until then the release before runs
    assert [str(migration) for migration in newest.migrate()] == [str(TAKES_AWAY)]
    assert newest.migrate() == newest.missing_migrations() == ()
    assert "note" not in columns(schema)
    with pytest.raises(StoreUnusable, match="upgrade retrysafe"):
        make().open()
    assert newest.perform(claiming())


def test_a_connection_that_is_made_anew_looks_at_the_schema_again(make):
    """A process that outlives an upgrade which took something away is refused with its next connection."""
    before = make()
    before.open()
    make(ADDS, TAKES_AWAY).migrate()
    with pytest.raises(StoreUnusable, match="upgrade retrysafe"):
        before.perform(claiming())


def test_an_upgrade_happens_whole_or_not_at_all(make, schema):
    """A script that fails in the middle leaves nothing behind; the next release with a sound one goes on."""
    make().open()
    with pytest.raises(StoreUnusable, match="does not exist"):
        make(BREAKS).open()
    assert not columns(schema, "half")
    make(ADDS).open()
    assert "note" in columns(schema)


def test_tables_of_another_application_are_refused(schema):
    """A schema that has tables of the same names, and others' in them, stays as it is."""
    with server().connect() as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
        connection.execute(f"CREATE TABLE {schema}.meta (price integer)")
    with pytest.raises(StoreUnusable, match="Name another with schema="):
        PostgresStore(server().url(), schema=schema).open()
    assert columns(schema, "meta") == {"price"}


def test_a_user_with_few_rights(schema):
    """Who may not make a schema is told what to grant; with the schema there, what the docs list is enough."""
    page = Path(__file__).parents[2].joinpath("docs/how-to/postgres.md").read_text("utf-8")
    grants = re.findall(r"^GRANT .*;$", page, re.MULTILINE)
    user, password = f"u{schema}", "its-own-secret"
    with server().connect() as connection:
        connection.execute(f"CREATE USER {user} PASSWORD '{password}'")
        url = server().url().replace("owner@", f"{user}:{password}@")
        store = PostgresStore(url, schema=schema)
        with pytest.raises(StoreUnusable, match="permission denied") as refused:
            store.open()
        assert password not in str(refused.value)
        owner = PostgresStore(server().url(), schema=schema)
        owner.open()
        owner.close()
        for grant in grants:
            connection.execute(grant.replace("retrysafe", schema).replace("TO shop", f"TO {user}").encode())
        store.open()
        claim = claiming()
        assert store.perform(claim).record.token == claim.token
        assert store.perform(CountAnswers((AnswerCount("*", 1, 1),)))
        assert store.perform(TakeStats()).answers == (AnswerCount("*", 1, 1),)
        assert store.perform(AddHistory(claim.record_id, b"entry", 60_000))
        assert store.perform(ReadDetails(claim.record_id)).history == (b"entry",)
        assert not store.perform(Purge()).more
        assert store.missing_migrations() == ()
        store.close()


def test_no_error_and_no_name_has_the_password():
    """Whatever is wrong with the place, the password is not repeated."""
    for url in (
        "postgresql://owner:its-secret@127.0.0.1:1/shop",
        server().url("nowhere").replace("owner@", "nobody:its-secret@"),
    ):
        store = PostgresStore(url)
        with pytest.raises((StoreUnavailable, StoreUnusable)) as refused:
            store.open()
        assert "its-secret" not in str(refused.value) + store.name
    with pytest.raises(ConfigurationError) as wrong:
        PostgresStore("postgresql://owner:its-secret@[bad/shop")
    assert "its-secret" not in str(wrong.value)


def test_to_look_makes_nothing(make, schema):
    """What is missing is everything, and after that there is still nothing."""
    missing = make(ADDS).missing_migrations()
    assert [migration.number for migration in missing] == [migration.number for migration in (*KNOWN, ADDS)]
    assert not columns(schema)
    with server().connect() as connection:
        assert not connection.execute("SELECT FROM pg_namespace WHERE nspname = %s", [schema]).fetchall()


@pytest.mark.parametrize("there", [False, True])
def test_what_is_missing_may_be_gone_through_by_other_means(make, schema, there):
    """The scripts make what the store makes, in a schema that is there too, and it knows of it."""
    made = make(ADDS)
    if there:
        with server().connect() as connection:
            connection.execute(f"CREATE SCHEMA {schema}")
    scripts = [migration.script for migration in made.missing_migrations()]
    with server().connect() as connection:
        for script in scripts:
            connection.execute(script)
    assert made.missing_migrations() == made.migrate() == ()
    made.open()
    claim = claiming()
    assert made.perform(claim).record.token == claim.token
    assert "note" in columns(schema)
