"""The statements of the PostgreSQL store: what they say, how often, and what they cost in a large table."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import os
import re
import secrets
import time
from dataclasses import replace

import psycopg
import pytest

from retrysafe.model import Claim, State
from retrysafe.protocol.states import Event, sources, target
from retrysafe.protocol.transitions import AddHistory, ClaimIfAbsent, CompleteIfHeld, ListRecords, Purge, ReleaseIfHeld
from retrysafe.stores import postgres_session, postgres_sql, sql
from retrysafe.stores.migrations import migrations_of
from retrysafe.stores.postgres import PostgresStore
from retrysafe.stores.postgres_session import PLANS
from retrysafe.stores.postgres_sql import SERVER_CLOCK, Statements
from retrysafe.testing.subject import COLOURS
from tests.stores.cutting_proxy import CuttingProxy
from tests.stores.postgres_server import PATIENCE_S, server

ROWS = 5_000_000 if os.environ.get("RETRYSAFE_PROVE") else 200_000
BATCH = 64
REQUESTS = 50
RESPONSE = 500

STATEMENTS = Statements('"keys"')
BY_EVENT = {event: STATEMENTS.changes[kind] for kind, (event, _) in sql.MOVES.items()} | dict(STATEMENTS.purges)


def claiming(record_id=None):
    return ClaimIfAbsent(
        record_id or secrets.token_bytes(32), secrets.token_bytes(16), secrets.token_bytes(33), 600_000, 600_000
    )


def completing(claim):
    response = secrets.token_bytes(RESPONSE)
    return CompleteIfHeld(Claim(claim.record_id, claim.token, 1), response, 86_400_000, 2_592_000_000)


@pytest.fixture
def schema():
    return f"t{secrets.token_hex(8)}"


@pytest.fixture(params=sorted(COLOURS))
def colour(request):
    colour = COLOURS[request.param]()
    yield colour
    colour.close()


# --- what they say ------------------------------------------------------------------------------


@pytest.mark.parametrize("event", list(BY_EVENT))
def test_statement_has_the_states_of_its_event(event):
    """A statement asks for just the states that its event may come from, and leads to where it leads."""
    states = re.findall(r"state IN \((.*?)\)", BY_EVENT[event])
    assert states == [", ".join(f"'{state}'" for state in sources(event))]
    after = target(event)
    assert ('DELETE FROM "keys"' if after is None else f"SET state = '{after}'") in BY_EVENT[event]


def test_every_event_has_its_statement():
    """All that can happen to a record is said."""
    assert set(BY_EVENT) == set(Event) - {Event.CLAIM}


SCRIPTS = [migration.script for migration in migrations_of("postgres")]


@pytest.mark.parametrize("text", [*map(inspect.getsource, (postgres_sql, postgres_session)), *SCRIPTS])
def test_no_state_is_written_by_hand(text):
    """No state stands in quotes anywhere near SQL: it comes from the table."""
    assert not [state for state in State if f"'{state}'" in text or f'"{state}"' in text]


def test_the_time_is_the_servers(schema):
    """No clock of the application, and not the time at which a transaction began."""
    store = PostgresStore(server().url(), schema=schema)
    store.open()
    with server().connect() as connection:
        before_ms = time_of(connection)
        found = store.perform(claiming())
        after_ms = time_of(connection)
        assert before_ms <= found.now_ms <= after_ms
        with connection.transaction():
            first_ms = time_of(connection)
            connection.execute("SELECT pg_sleep(0.005)")
            assert first_ms < time_of(connection)
    store.close()


def time_of(connection):
    ((now_ms,),) = connection.execute(f"SELECT {SERVER_CLOCK}").fetchall()
    return now_ms


# --- how often they are said --------------------------------------------------------------------


def test_two_transactions_for_a_request_and_one_for_a_replay(colour, schema):
    """By the server's own count: a first request is two transactions, a replay one; by ours, as many round trips."""
    database = f"counted_{schema}"
    with server().connect("postgres") as observer:
        observer.execute(f"CREATE DATABASE {database}")
        proxy = CuttingProxy(server().port)
        store = PostgresStore(server().url(database, proxy.port), schema=schema)
        store.open()
        warm = claiming()
        colour.do(store, warm)
        colour.do(store, completing(warm))
        proxy.requests.clear()
        claims = [claiming() for _ in range(REQUESTS)]
        for claim in claims:
            colour.do(store, claim)
            colour.do(store, completing(claim))
        assert len(proxy.requests) == 2 * REQUESTS
        for claim in claims:
            assert len(colour.do(store, claiming(claim.record_id)).record.response) == RESPONSE
        assert len(proxy.requests) == 3 * REQUESTS
        for _ in range(100):
            colour.do(store, claiming(claims[0].record_id))
        store.close()
        colour.close()  # a connection tells its count at its end
        proxy.close()
        overhead = 30  # of opening and connecting
        expected = 3 * REQUESTS + 100 + 2
        give_up_s = time.monotonic() + PATIENCE_S
        counted = 0
        while counted < expected:
            assert time.monotonic() < give_up_s
            ((counted,),) = observer.execute(
                "SELECT xact_commit FROM pg_stat_database WHERE datname = %s", [database]
            ).fetchall()
        assert counted <= expected + overhead


# --- what they cost -----------------------------------------------------------------------------


def grow(connection, schema, rows):
    """So many records that are completed; a tenth as many that are unknown, with a request; and as many histories."""
    connection.execute(
        f"INSERT INTO {schema}.records (record_id, state, token, attempt, fingerprint, created_at_ms, claimed_at_ms,"
        " lease_until_ms, settled_at_ms, expires_at_ms, forget_at_ms, response, route)"
        " SELECT sha256(n::text::bytea), 'completed', substr(sha256(n::text::bytea), 1, 16), 1, sha256('f'), 1, 1, 1,"
        f" 1, 9e15::bigint + n, 9e15::bigint + n, 'r', '*' FROM generate_series(1, {rows}) AS n"
    )
    connection.execute(
        f"INSERT INTO {schema}.records (record_id, state, token, attempt, fingerprint, created_at_ms, claimed_at_ms,"
        " lease_until_ms, settled_at_ms, forget_at_ms, request, route)"
        " SELECT sha256((-n)::text::bytea), 'unknown', substr(sha256(n::text::bytea), 1, 16), 1, sha256('f'), 1, 1, 1,"
        f" 1, 9e15::bigint + n, 'q', '*' FROM generate_series(1, {rows // 10}) AS n"
    )
    connection.execute(
        f"INSERT INTO {schema}.history (record_id, place, added_at_ms, forget_at_ms, entry)"
        f" SELECT sha256((-n)::text::bytea), 1, 1, 9e15::bigint + n, 'e' FROM generate_series(1, {rows // 10}) AS n"
    )


def plan_nodes(node):
    yield node
    for child in node.get("Plans", ()):
        yield from plan_nodes(child)


def explained(connection, execute):
    ((plans,),) = connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {execute}").fetchall()
    plans = json.loads(plans) if isinstance(plans, str) else plans
    nodes = list(plan_nodes(plans[0]["Plan"]))
    pages = nodes[0]["Shared Hit Blocks"] + nodes[0]["Shared Read Blocks"]
    read_whole = [node["Node Type"] for node in nodes if "Seq Scan" in node["Node Type"]]
    joined_whole = [node["Node Type"] for node in nodes if node["Node Type"] in {"Hash Join", "Merge Join"}]
    return read_whole + joined_whole, pages


def array_of(column):
    """A literal for a parameter of a batch: records from the middle of the table."""
    if column.endswith("_ms"):
        return f"ARRAY[{', '.join(['1'] * BATCH)}]::bigint[]"
    if column in {"route", "seen_state"}:
        return f"array_fill('*'::text, ARRAY[{BATCH}])"
    digests = [hashlib.sha256(str(ROWS // 2 + number).encode()).digest() for number in range(BATCH)]
    values = digests if column == "record_id" else [digest[:16] for digest in digests]
    return f"ARRAY[{', '.join(quoted(value) for value in values)}]::bytea[]"


def quoted(value):
    return f"'\\x{value.hex()}'"


GIVEN = {
    "after": f"{quoted(bytes([128]))}::bytea",
    "after_ms": "0",
    "batch_max": "200",
    "now_ms": "9000000000000",
    "skipped": "200",
}


def prepared(schema):
    """The statements that a request needs, and what each is given: text, parameters."""
    statements = Statements(schema)
    batches = {ClaimIfAbsent: statements.claim, AddHistory: statements.add_history, **statements.changes}
    for kind, text in batches.items():
        (asked,) = set(re.findall(r"AS asked\((.*?)\)", text))
        asked = asked.replace("asked_", "").split(", ")
        yield kind.__name__, text, ["0", *(array_of(column) for column in asked)]
    for name in ("read", "details", "history"):
        yield name, getattr(statements, name), ["0", array_of("record_id")]
    yield "due", statements.due, ["0"]
    for name in ("responses", "portion_end", "abandoned"):
        question = getattr(statements, name)
        yield name, question.text, [GIVEN[value] for value in question.names]
    for event, text in [*statements.purges.items(), ("history", statements.purge_history)]:
        yield event, text, ["0", "200"]


def test_plans_stay_good_while_the_table_grows(schema):
    """Every statement finds its records by an index, in a large table that nobody has analysed since it was empty."""
    PostgresStore(server().url(), schema=schema).open()
    with server().connect() as connection:
        connection.execute(PLANS)
        connection.execute(f"ANALYZE {schema}.records")  # so that the planner believes that it is small
        calls = []
        for number, (name, text, values) in enumerate(prepared(schema)):
            connection.execute(f"PREPARE p{number} AS {text}")
            call = f"EXECUTE p{number}" + (f"({', '.join(values)})" if values else "")
            connection.execute(call)
            calls.append((name, call))
        grow(connection, schema, ROWS)
        for name, call in calls:
            whole, pages = explained(connection, call)
            assert (name, whole) == (name, [])
            assert pages < BATCH * 40, name  # a table of this size has thousands
        connection.execute(f"DROP SCHEMA {schema} CASCADE")


def test_a_page_of_a_list_looks_at_a_portion(schema):
    """However few of the records are those that are looked for, a page reads a few thousand, and not all."""
    store = PostgresStore(server().url(), schema=schema)
    store.open()
    with server().connect() as connection:
        grow(connection, schema, ROWS)
        connection.execute(f"ANALYZE {schema}.records")
        wish = ListRecords((State.RETRYABLE,), batch_max=10)
        found = pages = 0
        store.perform(claim := claiming(bytes([255]) * 32))
        assert store.perform(ReleaseIfHeld(Claim(claim.record_id, claim.token, 1), 1))
        after: bytes | None = b""
        while after is not None:
            page = store.perform(replace(wish, after=after))
            pages, found = pages + 1, found + len(page.records)
            after = page.next_after
        assert found == 1
        assert pages >= ROWS // sql.PORTION
        values = [GIVEN["after"], f"{quoted(bytes([129]))}::bytea", "'retryable'", "NULL", "200"]
        connection.execute(f"PREPARE listed AS {Statements(schema).listed.text}")
        whole, read = explained(connection, f"EXECUTE listed({', '.join(values)})")
        assert whole == []
        assert read < ROWS // 100
        connection.execute(f"DROP SCHEMA {schema} CASCADE")
    store.close()


ROWS_READ = (
    "SELECT n_tup_ins, n_tup_upd, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables"
    " WHERE schemaname = %s AND relname = 'records'"
)


def counted_rows(connection, schema, inserted, updated):
    """How many rows of the records were read up to now, as soon as the server has counted so many writes."""
    give_up_s = time.monotonic() + PATIENCE_S
    while True:
        ((made, changed, read),) = connection.execute(ROWS_READ, [schema]).fetchall()
        if made >= inserted and changed >= updated:
            return read
        assert time.monotonic() < give_up_s, (made, changed)


def test_the_lanes_read_no_more_when_the_table_has_grown(schema):
    """The store's own connections, made while the table was empty, read just what they are about when it has grown."""
    count = 5 * BATCH

    async def use(store):
        claims = [claiming() for _ in range(count)]
        await asyncio.gather(*map(store.submit, claims))
        assert all(await asyncio.gather(*(store.submit(completing(claim)) for claim in claims)))

    async def main(store, connection):
        await use(store)
        await asyncio.to_thread(grow, connection, schema, ROWS)
        await use(store)

    store = PostgresStore(server().url(), schema=schema)
    store.open()
    with server().connect() as connection:
        asyncio.run(main(store, connection))
        store.close()  # a connection tells its count at its end
        read = counted_rows(connection, schema, ROWS + ROWS // 10 + 2 * count, 2 * count)
        assert read < ROWS // 4  # a plan that reads the table reads all of it, for each batch
        connection.execute(f"DROP SCHEMA {schema} CASCADE")


def test_purging_goes_past_what_somebody_holds(schema):
    """A purge does not wait for a record that is locked, and does not say for its sake that there is more."""
    store = PostgresStore(server().url(), schema=schema)
    store.open()
    claims = [claiming() for _ in range(3)]
    for claim in claims:
        store.perform(claim)
        store.perform(CompleteIfHeld(Claim(claim.record_id, claim.token, 1), b"r", 0, 0))
    with server().connect() as connection:
        with connection.transaction():
            connection.execute(f"SELECT FROM {schema}.records WHERE record_id = %s FOR UPDATE", [claims[0].record_id])
            first = store.perform(Purge())
            assert (first.forgotten, store.perform(Purge()).more) == (2, False)
        assert store.perform(Purge()).forgotten == 1
        assert connection.execute(f"SELECT count(*) FROM {schema}.records").fetchone() == (0,)
    store.close()


def test_bytes_of_a_record(schema):
    """What a record with a response of 500 bytes takes, indexes and all, when it was claimed and completed."""
    count = 5_000

    async def main(store):
        for _ in range(count // 500):
            claims = [claiming() for _ in range(500)]
            await asyncio.gather(*map(store.submit, claims))
            await asyncio.gather(*(store.submit(completing(claim)) for claim in claims))
            await asyncio.to_thread(vacuum, schema)  # as autovacuum does

    store = PostgresStore(server().url(), schema=schema)
    store.open()
    asyncio.run(main(store))
    store.close()
    with server().connect() as connection:
        ((size,),) = connection.execute(f"SELECT pg_total_relation_size('{schema}.records')").fetchall()
    assert size / count <= 900


def vacuum(schema):
    with psycopg.connect(server().url(), autocommit=True) as connection:
        connection.execute(f"VACUUM {schema}.records")
