"""What a network, a server and its operators can do to the PostgreSQL store, with real ones."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from retrysafe.errors import StoreError, StoreUnavailable, StoreUnusable
from retrysafe.model import Claim, State
from retrysafe.protocol.transitions import ClaimIfAbsent, CompleteIfHeld, DiscardIfHeld, Read, RenewIfHeld
from retrysafe.stores import postgres_session
from retrysafe.stores.lanes import finished
from retrysafe.stores.postgres import PostgresStore
from retrysafe.stores.postgres_psycopg import ThreadSession
from retrysafe.testing.subject import COLOURS
from tests.stores.cutting_proxy import CuttingProxy
from tests.stores.postgres_server import PATIENCE_S, Bouncer, PostgresServer, bouncer, server
from tests.stores.test_sqlite_processes import in_child

MANY = 32


def claiming(record_id=None):
    return ClaimIfAbsent(record_id or secrets.token_bytes(32), secrets.token_bytes(16), b"f", 600_000, 600_000)


def held(claim):
    return Claim(claim.record_id, claim.token, 1)


def completing(claim, response=b"response"):
    return CompleteIfHeld(held(claim), response, 600_000, 600_000)


def new_schema():
    return f"t{secrets.token_hex(8)}"


@pytest.fixture(params=sorted(COLOURS))
def colour(request):
    colour = COLOURS[request.param]()
    yield colour
    colour.close()


@contextmanager
def opened(url, **options):
    store = PostgresStore(url, schema=options.pop("schema", None) or new_schema(), **options)
    store.open()
    try:
        yield store
    finally:
        store.close()


@contextmanager
def own_server(settings=""):
    started = PostgresServer(settings)
    try:
        yield started
    finally:
        started.remove()


def until(condition):
    """Ask again and again, for so long."""
    give_up_s = time.monotonic() + PATIENCE_S
    while not (answer := condition()):
        assert time.monotonic() < give_up_s
    return answer


# --- connections that go ------------------------------------------------------------------------


@pytest.fixture
def proxy():
    proxy = CuttingProxy(server().port)
    yield proxy
    proxy.close()


@pytest.mark.parametrize("lost", ["claim", "completion"])
def test_a_lost_reply_is_in_doubt_until_it_is_read_by_token(colour, proxy, lost):
    """The write was applied and its answer was not heard: the caller hears that nobody knows, and then looks."""
    with opened(server().url(port=proxy.port)) as store:
        for _ in range(2):  # so that every statement is prepared
            warm = claiming()
            colour.do(store, warm)
            colour.do(store, completing(warm))
        claim = claiming()
        transition = claim if lost == "claim" else completing(claim)
        if lost == "completion":
            colour.do(store, claim)
        proxy.deaf = 1
        with pytest.raises(StoreUnavailable, match="may or may not have been applied"):
            colour.do(store, transition)
        found = colour.do(store, Read(claim.record_id))
        assert found.record.token == claim.token
        assert found.record.state is (State.IN_PROGRESS if lost == "claim" else State.COMPLETED)
        assert colour.do(store, claim).record.token == claim.token


def test_what_was_not_sent_is_not_in_doubt(colour):
    """A connection that was cut while nothing was asked is made anew, and nobody hears of it."""
    with opened(server().url()) as store, server().connect() as other:
        claim = claiming()
        colour.do(store, claim)
        assert colour.do(store, completing(claim))
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'retrysafe'")
        until(lambda: not other.execute("SELECT FROM pg_stat_activity WHERE application_name = 'retrysafe'").fetchall())
        if hasattr(colour, "_runner"):
            colour._runner.run(noticing(store))
        assert colour.do(store, Read(claim.record_id)).record.state is State.COMPLETED


async def noticing(store):
    """Let the loop hear that its connections were cut, as one that runs on does by itself."""
    for lane in store._lanes._loops[asyncio.get_running_loop()]:
        while lane._session.connected:  # noqa: ASYNC110 - it is the loop that is waited for
            await asyncio.sleep(0)


def test_a_server_that_is_away_is_unavailable_and_comes_back(colour):
    """While it is away every transition says so; when it is back, the store goes on by itself."""
    with own_server() as away, opened(away.url()) as store:
        claim = claiming()
        colour.do(store, claim)
        away.stop()
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                colour.do(store, completing(claim))
        with pytest.raises(StoreUnavailable):
            PostgresStore(away.url()).open()
        away.start()
        assert colour.do(store, completing(claim))


@pytest.mark.parametrize("through", ["directly", "a pooler"])
def test_a_server_that_hangs_is_given_up(colour, monkeypatch, through):
    """A server that does not answer, and does not hang up either, is waited for so long and not for ever."""
    monkeypatch.setattr(postgres_session, "ANSWER_S", 0.3)
    with own_server() as hanging, opened(hanging.url()) as store, hanging.connect() as other:
        store._place.pooled = through == "a pooler"
        colour.do(store, claiming())
        processes = other.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'retrysafe'").fetchall()
        for (process,) in processes:
            os.kill(process, signal.SIGSTOP)
        try:
            with pytest.raises(StoreUnavailable, match="may or may not have been applied"):
                colour.do(store, claiming())
        finally:
            for (process,) in processes:
                os.kill(process, signal.SIGCONT)
        claim = claiming()
        assert colour.do(store, claim).record.token == claim.token


def test_what_was_acknowledged_survives_the_death_of_the_server():
    """The server is killed in the middle of many commits: what it acknowledged is there, whatever was in flight."""
    acknowledged = []
    enough = threading.Event()

    async def one(store):
        while True:
            claim = claiming()
            await store.submit(claim)
            assert await store.submit(completing(claim, claim.record_id))
            acknowledged.append(claim)
            if len(acknowledged) >= 500:
                enough.set()

    async def many(store):
        results = await asyncio.gather(*(one(store) for _ in range(MANY)), return_exceptions=True)
        assert {type(result) for result in results} == {StoreUnavailable}

    with own_server() as killed, opened(killed.url()) as store, ThreadPoolExecutor(1) as pool:
        working = pool.submit(lambda: asyncio.run(many(store)))
        assert enough.wait(PATIENCE_S)
        killed.kill()
        working.result(PATIENCE_S)
        killed.start()
        for claim in acknowledged:
            record = store.perform(Read(claim.record_id)).record
            assert (record.state, record.response) == (State.COMPLETED, claim.record_id)


def test_a_child_connects_for_itself():
    """A fork after the store was used: parent and child go on, neither in the other's connection."""
    with opened(server().url()) as store:
        claim, inherited = claiming(), claiming()
        store.perform(claim)

        def work():
            assert store.perform(inherited).record.token == inherited.token
            assert store.perform(completing(inherited))
            return "done"

        with ThreadPoolExecutor(1) as pool:
            renewing = pool.submit(lambda: [store.perform(RenewIfHeld(held(claim), 9, 9)) for _ in range(MANY)])
            assert in_child(os.fork, work) == "done"
            assert renewing.result() == [True] * MANY
        assert store.perform(completing(claim))
        assert store.perform(Read(inherited.record_id)).record.state is State.COMPLETED


# --- commits that nobody can vouch for ----------------------------------------------------------


def test_a_commit_that_the_server_warns_of_is_in_doubt(colour):
    """The wait for a synchronous standby is cancelled: the server says success, and warns. That is not success."""
    with own_server() as primary, opened(primary.url()) as store, primary.connect() as other:
        other.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        other.execute("SELECT pg_reload_conf()")
        cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        with ThreadPoolExecutor(1) as pool:
            until(lambda: other.execute("SHOW synchronous_standby_names").fetchone() == ("nobody",))
            while True:  # the server waits for it some time after it shows it
                claim = claiming()
                answer = pool.submit(colour.do, store, claim)
                if until(lambda: other.execute(cancel).fetchall() or answer.done()) is not True:  # noqa: B023 - at once
                    break
            with pytest.raises(StoreUnavailable, match="synchronous replication"):
                answer.result(PATIENCE_S)
        other.execute("ALTER SYSTEM RESET synchronous_standby_names")
        other.execute("SELECT pg_reload_conf()")
        assert colour.do(store, Read(claim.record_id)).record.token == claim.token


@contextmanager
def failing(store, sqlstate, times):
    """A trigger in the database: so many insertions fail with this SQLSTATE."""
    schema = store._place.statements.schema
    with server().connect() as other:
        other.execute(f"CREATE SEQUENCE {schema}.failures")
        other.execute(
            f"CREATE FUNCTION {schema}.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF nextval('{schema}.failures') <= {times} THEN RAISE EXCEPTION 'injected' USING ERRCODE = '{sqlstate}';"
            " END IF; RETURN NEW; END $$"
        )
        other.execute(
            f"CREATE TRIGGER fail BEFORE INSERT ON {schema}.records FOR EACH ROW EXECUTE FUNCTION {schema}.fail()"
        )
        yield


@pytest.mark.parametrize("sqlstate", ["40001", "40P01"])
def test_a_serialization_failure_is_tried_again(colour, sqlstate):
    """What the server undid for a conflict is done again, and nobody hears of it."""
    with opened(server().url(), portable=True) as store, failing(store, sqlstate, 3):
        claim = claiming()
        assert colour.do(store, claim).record.token == claim.token


def test_a_commit_whose_end_is_unknown_is_in_doubt(colour):
    """40003: the server itself does not know. The claim is repeated by whoever made it, and recognises itself."""
    with opened(server().url(), portable=True) as store, failing(store, "40003", 1):
        claim = claiming()
        with pytest.raises(StoreUnavailable, match="may or may not have been applied"):
            colour.do(store, claim)
        assert colour.do(store, claim).record.token == claim.token


def test_a_row_that_the_server_refuses_fails_alone(colour):
    """A value that no column holds, in a batch with others: it alone is told, and its value is not repeated."""
    with opened(server().url()) as store:
        claims = [claiming() for _ in range(5)]
        bad = ClaimIfAbsent(secrets.token_bytes(32), secrets.token_bytes(16), b"f", 2**62, 2**62)
        outcomes = race_with_errors(colour, store, [*claims, bad])
        assert [found.record.token for found in outcomes[:-1]] == [claim.token for claim in claims]
        assert type(outcomes[-1]) is StoreError
        assert str(2**62) not in str(outcomes[-1])


def test_what_the_server_quotes_of_a_row_is_in_no_traceback(colour):
    """A constraint of somebody else's refuses a response: the server quotes the row, and nobody gets to read it."""
    body = b"the content of a response"
    with opened(server().url()) as store, server().connect() as other:
        claim = claiming()
        colour.do(store, claim)
        other.execute(
            f"ALTER TABLE {store._place.statements.schema}.records ADD CHECK (response IS NULL OR length(response) < 9)"
        )
        with pytest.raises(StoreError, match="23514") as refused:
            colour.do(store, completing(claim, body))
        shown = "".join(traceback.format_exception(refused.value))
        assert body.hex() not in shown
        assert claim.token.hex() not in shown


def race_with_errors(colour, store, transitions):
    def outcome(transition):
        try:
            return store.perform(transition)
        except StoreError as error:
            return error

    async def gather():
        return await asyncio.gather(*map(store.submit, transitions), return_exceptions=True)

    if hasattr(colour, "_runner"):
        return colour._runner.run(gather())
    with ThreadPoolExecutor(len(transitions)) as pool:
        return list(pool.map(outcome, transitions))


# --- standbys -----------------------------------------------------------------------------------


def test_a_standby_is_refused():
    """A server in recovery lags: it is refused when it is opened, and does not answer a read that decides."""
    with own_server("wal_level = replica\n") as primary, opened(primary.url(), schema="keys") as store:
        claim = claiming()
        store.perform(claim)
        standby = PostgresServer("hot_standby = on\n", copy_of=primary)
        try:
            with pytest.raises(StoreUnusable, match="in recovery"):
                PostgresStore(standby.url(), schema="keys").open()
            session = ThreadSession(PostgresStore(standby.url(), schema="keys")._place)
            finished(session.dial())
            with pytest.raises(StoreUnavailable, match="in recovery"):
                finished(session.run([Read(claim.record_id)]))
            with pytest.raises(Exception, match="read-only") as refused:
                finished(session.run([claiming()]))
            assert "name the primary" in str(session.judge(refused.value).failure)
            finished(session.close())
        finally:
            standby.remove()


# --- locks and poolers --------------------------------------------------------------------------


def test_an_open_transaction_holds_up_no_other_key(colour):
    """A handler has its record locked in a transaction of its own: claims go on, on other keys and on this one."""
    with opened(server().url()) as store, server().connect() as handler:
        claim, other = claiming(), claiming()
        for one in (claim, other):
            colour.do(store, one)
        with handler.transaction():
            handler.execute(
                f"UPDATE {store._place.statements.records} SET attempt = 7 WHERE record_id = %s", [claim.record_id]
            )
            assert colour.do(store, claiming(claim.record_id)).record.token == claim.token
            fresh = claiming()
            assert colour.do(store, fresh).record.token == fresh.token
            with pytest.raises(StoreUnavailable, match="has the row locked"):
                colour.do(store, completing(claim))
            assert colour.do(store, completing(other))
        assert colour.do(store, completing(claim))


def test_a_locked_row_fails_alone(colour):
    """Of a batch in which somebody has one row locked, the others are settled."""
    with opened(server().url()) as store, server().connect() as handler:
        claims = [claiming() for _ in range(MANY)]
        colour.race([store], claims)
        with handler.transaction():
            handler.execute(
                f"SELECT FROM {store._place.statements.records} WHERE record_id = %s FOR UPDATE", [claims[0].record_id]
            )
            outcomes = race_with_errors(colour, store, [completing(claim) for claim in claims])
        assert type(outcomes[0]) is StoreUnavailable
        assert outcomes[1:] == [True] * (MANY - 1)


def test_a_pooler_is_found_out():
    """Behind PgBouncer nothing is prepared; directly, everything is."""
    with opened(server().url()) as store:
        assert not store._place.pooled
    with opened(server().url(port=bouncer().port)) as store:
        assert store._place.pooled


def test_nothing_is_left_set_on_a_connection_of_a_pooler():
    """What a transition sets ends with its statement: whoever gets the connection next finds it as it was."""
    own = Bouncer(server())
    try:
        with opened(server().url(port=own.port)) as store:
            claim = claiming()
            store.perform(claim)
            store.perform(completing(claim))
            session = ThreadSession(store._place)
            finished(session.dial())
            for name, value in (("lock_timeout", "0"), ("plan_cache_mode", "auto")):
                assert finished(session.fetch(f"SHOW {name}")) == [(value,)]
            finished(session.close())
    finally:
        own.remove()


def test_many_clients_behind_few_connections(colour):
    """Far more lanes than connections of the pooler: each transition is whole, and one claim wins."""
    with opened(server().url(port=bouncer().port)) as store:
        record_id = secrets.token_bytes(32)
        claims = [claiming(record_id) for _ in range(64)]
        stores = [PostgresStore(store._place.url, schema=store._place.statements.schema.strip('"')) for _ in range(8)]
        for one in stores:
            one.open()
        found = [found for one in stores for found in colour.race([one], claims[:8])]
        assert len({one.record.token for one in found}) == 1
        assert colour.do(stores[0], DiscardIfHeld(Claim(record_id, found[0].record.token, 1)))
        for one in stores:
            one.close()
