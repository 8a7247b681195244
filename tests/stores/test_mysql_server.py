"""The server under the MySQL store: which ones are refused, how the schema comes about, and what a crash leaves."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pymysql
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pymysql.constants import CLIENT

from retrysafe.errors import StoreError, StoreUnavailable, StoreUnusable
from retrysafe.model import Claim, State
from retrysafe.protocol.states import Event
from retrysafe.protocol.transitions import (
    AnswerCount,
    CountAnswers,
    ListResponses,
    Purge,
    Purged,
    Read,
    ReplaceResponseIfSame,
    TakeOverIfLapsed,
    TakeStats,
)
from retrysafe.stores import mysql_asyncmy, mysql_pymysql
from retrysafe.stores.clock import host_clock
from retrysafe.stores.lanes import finished
from retrysafe.stores.location import open_store
from retrysafe.stores.migrations import Migration, migrations_of
from retrysafe.stores.mysql import MysqlStore
from retrysafe.stores.mysql_pymysql import BlockingWire
from retrysafe.stores.mysql_server import ServerError, failure_of, may_lose, unusable
from retrysafe.stores.mysql_session import IDLE_S_MAX, MysqlSession, Terms
from retrysafe.stores.mysql_sql import CLOCK, plan_of
from retrysafe.testing import ManualClock
from retrysafe.testing.subject import transition_of
from tests.stores.mariadb import PASSWORD, USER, ManualMysqlStore, Mariadb, address_of, server
from tests.stores.test_mysql_batches import (
    claiming,
    completing,
    end_connections,
    nobody_is_connected,
    state,
    together,
    until,
)
from tests.stores.test_sqlite_processes import ROOT, in_child

KNOWN = migrations_of("mysql")
ADDS = Migration(len(KNOWN) + 1, "adds", "ALTER TABLE retrysafe_records ADD COLUMN note INT;\n")
TAKES_AWAY = Migration(len(KNOWN) + 2, "takes_away", "ALTER TABLE retrysafe_records DROP COLUMN note;\n", after=True)


@pytest.fixture
def address(tmp_path):
    return address_of(tmp_path)


@pytest.fixture
def store(address):
    store = MysqlStore(address, lock_wait_s=1)
    store.open()
    yield store
    store.close()


@pytest.fixture
def own():
    """A server that a test may kill and start again."""
    mariadb = Mariadb()
    yield mariadb
    mariadb.remove()


@pytest.fixture
def setting():
    """Sets a variable of the shared server, until the test is over."""
    before: dict[str, object] = {}

    def change(name, value):
        ((now,),) = server().ask(f"SELECT @@GLOBAL.{name}")
        before.setdefault(name, now)
        server().ask(f"SET GLOBAL {name} = {value!r}")

    yield change
    for name, value in before.items():
        server().ask(f"SET GLOBAL {name} = {value!r}")


# --- which servers are refused ------------------------------------------------------------------

SOUND = {
    "version": "10.11.19-MariaDB",
    "sql_mode": "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION",
    "tx_isolation": "READ-COMMITTED",
    "read_only": "OFF",
    "innodb_read_only": "OFF",
    "log_bin": "ON",
    "binlog_format": "MIXED",
    "innodb_flush_log_at_trx_commit": "1",
    "sync_binlog": "1",
    "max_allowed_packet": "16777216",
}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"version": "10.5.28-MariaDB"}, "at least MariaDB 10.6"),
        ({"version": "5.7.44-log"}, "at least MySQL 8.0"),
        ({"read_only": "ON"}, "read-only"),
        ({"super_read_only": "ON"}, "read-only"),
        ({"innodb_read_only": "ON"}, "read-only"),
        ({"sql_mode": "NO_ENGINE_SUBSTITUTION"}, "STRICT_ALL_TABLES"),
        ({"tx_isolation": "REPEATABLE-READ"}, "READ COMMITTED"),
        ({"transaction_isolation": "REPEATABLE-READ"}, "READ COMMITTED"),
        ({"binlog_format": "STATEMENT"}, "ROW or MIXED"),
    ],
)
def test_unusable(changed, said):
    """Each fault alone is enough, and is named with what to do."""
    assert said in str(unusable(SOUND | changed))


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"version": "11.8.2-MariaDB-ubu2404", "transaction_isolation": "READ-COMMITTED"},
        {"version": "8.0.43", "super_read_only": "OFF"},
        {"version": "8.4.6-cluster"},
        {"version": "9.5.0"},
        {"log_bin": "OFF", "binlog_format": "STATEMENT"},
    ],
)
def test_usable(changed):
    """What has no fault is used, whichever of the two kinds it is."""
    assert unusable(SOUND | changed) is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, None),
        ({"innodb_flush_log_at_trx_commit": "2"}, "last second"),
        ({"innodb_flush_log_at_trx_commit": "0"}, "last second"),
        ({"sync_binlog": "0"}, "sync_binlog"),
        ({"sync_binlog": "0", "log_bin": "OFF"}, None),
    ],
)
def test_what_may_be_lost_is_said(changed, said):
    """A server that acknowledges before its disk has written is used, and it is said what that may cost."""
    loss = may_lose(SOUND | changed)
    assert (loss is None) if said is None else (said in str(loss))


def test_a_read_only_server_is_refused(address, setting):
    """It is refused by name, also for an account that may write to it all the same."""
    setting("read_only", 1)
    with pytest.raises(StoreUnusable, match=r"read-only.*where writes go"):
        MysqlStore(address).open()


def test_a_server_that_becomes_read_only_is_refused(store, address, setting):
    """A server that is demoted while the store is open: no new connection to it serves any record."""
    claim = claiming()
    store.perform(claim)
    setting("read_only", 1)
    store.close()
    with pytest.raises(StoreUnusable):
        store.open()
    server().ask("SET GLOBAL read_only = 0")
    store.open()
    assert store.perform(claim).record.token == claim.token


def test_writes_that_the_server_refuses_are_unavailable(address, setting):
    """An account without privileges meets a server that has become read-only: it says so, and applies nothing."""
    server().ask(f"CREATE OR REPLACE USER 'plain'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'")
    server().ask(
        f"GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX ON `{address.database}`.* TO 'plain'@'127.0.0.1'"
    )
    store = MysqlStore(replace(address, user="plain"))
    store.open()
    claim = claiming()
    store.perform(claim)
    store.perform(completing(claiming()))
    setting("read_only", 1)
    for _ in ("on a connection that was there", "on a new one"):
        with pytest.raises(StoreUnavailable, match="takes no writes now"):
            store.perform(completing(claim))
    server().ask("SET GLOBAL read_only = 0")
    assert store.perform(completing(claim))
    store.close()


def test_weak_durability_is_warned_of(address, setting, caplog):
    """Opening says on the log what the server's setting may lose."""
    setting("innodb_flush_log_at_trx_commit", 2)
    store = MysqlStore(address)
    with caplog.at_level(logging.WARNING, "retrysafe"):
        store.open()
    store.close()
    assert "innodb_flush_log_at_trx_commit is not 1" in caplog.text
    assert PASSWORD not in caplog.text


def test_sound_durability_is_not_warned_of(store, caplog):
    """A server that is set up well is not complained about."""
    with caplog.at_level(logging.WARNING, "retrysafe"):
        store.open()
    assert not caplog.text


def test_a_binary_log_by_statement_is_refused(own):
    """It could not write at READ COMMITTED at all."""
    own.start("--log-bin=binlog", "--binlog-format=STATEMENT", "--server-id=1")
    with pytest.raises(StoreUnusable, match="binlog_format to ROW or MIXED"):
        MysqlStore(own.database("shop")).open()


def test_a_binary_log_is_written_to(own):
    """With a binary log that is synchronous, all is as without."""
    own.start("--log-bin=binlog", "--binlog-format=ROW", "--server-id=1", "--sync-binlog=1")
    store = MysqlStore(own.database("shop"))
    store.open()
    claims = [claiming(), claiming()]
    asyncio.run(together(store, claims))
    assert asyncio.run(together(store, map(completing, claims))) == [True, True]
    store.close()


@pytest.mark.parametrize("table", ["retrysafe_meta", "retrysafe_records", "retrysafe_answers", "retrysafe_history"])
def test_a_table_of_another_engine_is_refused(store, address, table):
    """A table without transactions is found, and what to do is said."""
    server().ask(f"ALTER TABLE {table} ENGINE = Aria", address.database)
    with pytest.raises(StoreUnusable, match=f"ALTER TABLE {table} ENGINE = InnoDB"):
        store.open()


def test_a_connection_that_counts_changed_rows_is_refused(store, address):
    """Something in between that drops CLIENT_FOUND_ROWS is found out before any record is served."""

    async def dial():
        flags = pymysql.constants.CLIENT.MULTI_STATEMENTS
        return BlockingWire(server().connect(address.database, client_flag=flags))

    session = MysqlSession(dial, Terms("mysql", CLOCK, lock_wait_s=1, migrations=len(KNOWN)))
    with pytest.raises(StoreUnusable, match="CLIENT_FOUND_ROWS"):
        finished(session.connect())
    session.drop()


# --- who we are, and what is said of it ---------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "kind", "said"),
    [
        ({"password": "wrong and secret"}, StoreUnusable, "account or its password"),
        ({"user": "nobody"}, StoreUnusable, "account or its password"),
        ({"database": "not_there"}, StoreUnusable, "no such database"),
        ({"port": 1}, StoreUnavailable, "can be reached"),
        ({"tls": True}, StoreUnavailable, "can be reached"),
    ],
)
def test_wrong_addresses(address, wrong, kind, said):
    """Each mistake is named, and no password is."""
    store = MysqlStore(replace(address, **wrong))
    with pytest.raises(kind, match=said) as failed:
        store.open()
    assert "secret" not in str(failed.value)
    assert PASSWORD not in str(failed.value)
    assert failed.value.__cause__ is None


def test_an_account_without_rights_is_refused(address):
    """An account that may not make the tables is told what it lacks."""
    server().ask(f"CREATE OR REPLACE USER 'reader'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'")
    server().ask(f"GRANT SELECT ON `{address.database}`.* TO 'reader'@'127.0.0.1'")
    with pytest.raises(StoreUnusable, match="GRANT"):
        MysqlStore(replace(address, user="reader")).open()


def test_what_the_server_quotes_is_not_repeated():
    """A server repeats in its messages what it was given; a caller hears the number only."""
    said = str(failure_of("mysql", ServerError(1064, "near x'6b6579' at line 1")))
    assert "1064" in said
    assert "6b6579" not in said


def test_a_server_whose_files_fail_is_to_blame_itself():
    """It is no fault of what it was given, and may be over soon."""
    said = failure_of("mysql", ServerError(6, "Error on delete of '/tmp/#sql-temptable-1'"))
    assert isinstance(said, StoreUnavailable)
    assert "own files" in str(said)


def test_from_a_url(address):
    """The URL of the docs, with a password that needs escaping, opens the store."""
    password = PASSWORD.replace(" ", "%20")
    store = open_store(f"mysql://{USER}:{password}@127.0.0.1:{address.port}/{address.database}")
    assert store.name == f"mysql 127.0.0.1:{address.port}/{address.database}"
    assert store.open() == store.open()
    store.close()


def test_tls(own, tmp_path):
    """With TLS, the certificate is verified: by the system's authorities, or by the one that is named."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "retrysafe tests")])
    today = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, today, today + dt.timedelta(days=36_500))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    ca, secret = own.folder / "ca.pem", own.folder / "key.pem"
    ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    own.start(f"--ssl-cert={ca}", f"--ssl-key={secret}", "--require-secure-transport=ON", plain=False)
    address = own.address
    with pytest.raises(StoreError):
        MysqlStore(replace(address, database="mysql")).open()
    with pytest.raises(StoreUnavailable, match="certificate"):
        MysqlStore(replace(address, database="mysql", tls=True)).open()
    trusting = replace(address, tls=True, tls_ca=str(ca))
    connection = own.connect(ssl={"ca": str(ca)}, ssl_disabled=False)
    connection.cursor().execute("CREATE DATABASE shop")
    connection.close()
    store = MysqlStore(replace(trusting, database="shop"))
    store.open()
    claim = claiming()
    assert asyncio.run(together(store, [claim]))[0].record.token == claim.token
    assert store.perform(completing(claim))
    store.close()


def test_tls_is_not_given_up(address):
    """Where the server, or who pretends to be it, offers no TLS, neither driver goes on without."""
    store = MysqlStore(address)
    store.open()
    for dial in (mysql_pymysql.dial, mysql_asyncmy.dial):
        with pytest.raises(ServerError) as refused:
            asyncio.run(dial(replace(address, tls=True), 5.0))
        assert refused.value.lost
    store.close()


# --- the schema ---------------------------------------------------------------------------------


def test_many_may_open_at_once(tmp_path):
    """Sixteen threads find an empty database: one makes the tables, all agree on the secret. Several times over."""
    for number in range(3):
        address = address_of(tmp_path / str(number))
        stores = [MysqlStore(address) for _ in range(16)]
        together = threading.Barrier(len(stores))

        def start(store, together=together):
            together.wait()
            return store.open()

        with ThreadPoolExecutor(len(stores)) as pool:
            assert len(set(pool.map(start, stores))) == 1
        for store in stores:
            store.close()


def test_a_newer_schema_is_refused(store, address):
    """A database that a newer release has upgraded is not touched, by those who open it and by those who have."""
    claims = [claiming() for _ in range(4)]

    async def main():
        await together(store, claims[:2])
        server().ask(f"UPDATE retrysafe_meta SET must_know = {len(KNOWN) + 1}", address.database)
        with pytest.raises(StoreUnusable, match="upgrade retrysafe"):
            MysqlStore(address).open()
        end_connections(address)
        await until(lambda: nobody_is_connected(store))
        return await together(store, claims)

    assert {type(outcome) for outcome in asyncio.run(main())} == {StoreUnusable}
    with pytest.raises(StoreUnusable, match="upgrade retrysafe"):
        store.perform(claims[3])
    assert server().ask("SELECT COUNT(*) FROM retrysafe_records", address.database) == ((2,),)


def test_an_upgrade_keeps_the_records(store, address):
    """Before a deployment a migration is gone through in opening; the release before runs on, until the one after."""
    claim = claiming()
    store.perform(claim)
    newest = MysqlStore(address, migrations=[*KNOWN, ADDS, TAKES_AWAY])
    for _ in range(2):
        newest.open()
        assert newest.perform(claim).record.token == claim.token
        newest.close()
    old = MysqlStore(address)
    old.open()
    assert old.perform(claim).record.token == claim.token
    assert [str(migration) for migration in newest.migrate()] == [str(TAKES_AWAY)]
    assert newest.migrate() == newest.missing_migrations() == ()
    newest.open()
    assert newest.perform(claim).record.token == claim.token
    newest.close()
    with pytest.raises(StoreUnusable, match="upgrade retrysafe"):
        MysqlStore(address).open()
    old.close()


def test_what_is_missing_may_be_gone_through_by_other_means(address):
    """To look makes nothing; the scripts make what the store makes, and it knows that they were gone through."""
    made = MysqlStore(address, migrations=[*KNOWN, ADDS])
    scripts = [migration.script for migration in made.missing_migrations()]
    assert len(scripts) == len(KNOWN) + 1
    assert server().ask("SHOW TABLES", address.database) == ()
    connection = server().connect(address.database, client_flag=CLIENT.MULTI_STATEMENTS)
    for script in scripts:
        cursor = connection.cursor()
        cursor.execute(script)
        while cursor.nextset():
            pass
    connection.close()
    assert made.missing_migrations() == made.migrate() == ()
    made.open()
    claim = claiming()
    assert made.perform(claim).record.token == claim.token
    made.close()


def test_an_interrupted_upgrade_is_begun_anew(address):
    """Whoever made the tables was stopped before it said so: the next one does it again, and nobody is hindered."""
    stopped = replace(KNOWN[0], script=f"{KNOWN[0].script}SELECT no_such_column FROM retrysafe_meta;\n")
    with pytest.raises(StoreUnusable):
        MysqlStore(address, migrations=[stopped]).open()
    assert server().ask("SELECT migrations FROM retrysafe_meta", address.database) == ((0,),)
    store = MysqlStore(address)
    store.open()
    assert store.perform(claiming())
    store.close()


def test_an_upgrade_elsewhere_is_waited_for(address, monkeypatch):
    """While another process upgrades, nobody else does; who waits too long says so."""
    monkeypatch.setattr("retrysafe.stores.mysql_server.MIGRATING_S", 1)
    other = server().connect(address.database)
    other.cursor().execute("SELECT GET_LOCK(CONCAT('retrysafe ', MD5(DATABASE())), 0)")
    with pytest.raises(StoreUnavailable, match="upgrading the schema for 1 s"):
        MysqlStore(address).open()
    other.close()


def test_tables_that_are_gone_are_missed(store, address):
    """Whoever drops the tables takes the records away: that is said, and no empty ones are made in passing."""
    store.perform(claiming())
    server().ask("DROP TABLE retrysafe_records", address.database)
    with pytest.raises(StoreUnusable, match="tables are gone"):
        store.perform(claiming())
    assert server().ask("SHOW TABLES LIKE 'retrysafe_records'", address.database) == ()


def test_identities_are_bytes(address, store):
    """No collation makes two identities one: neither in case, nor in accents, nor in blanks at the end."""
    rows = server().ask("SHOW FULL COLUMNS FROM retrysafe_records", address.database)
    assert {row[2] for row in rows} == {None, "ascii_bin"}
    claims = [claiming(identity.ljust(32, b"x")) for identity in (b"abc", b"ABC", b"\xe4bc", b"\xc4bc")]
    claims += [claiming(b"abc".ljust(32, filler)) for filler in (b" ", b"\0")]
    found = asyncio.run(together(store, claims))
    assert [one.record.token for one in found] == [claim.token for claim in claims]


def test_no_statement_looks_at_every_record(store, address):
    """However many records there are, each statement finds its own by an index."""
    claims = [claiming() for _ in range(200)]
    asyncio.run(together(store, claims))
    server().ask("ANALYZE TABLE retrysafe_records", address.database)
    taking = [TakeOverIfLapsed(claim.record_id, claim.token, bytes(16), 1, 1) for claim in claims[:4]]
    resealing = [ReplaceResponseIfSame(claim.record_id, claim.token, b"response", b"other") for claim in claims[:4]]
    batches = [[completing(claims[0])], [*map(completing, claims[:4])], claims[:1], claims[:4], taking, [Purge()]]
    batches += [resealing[:1], resealing, [ListResponses(claims[100].record_id, 9)]]
    connection = server().connect(address.database)
    cursor = connection.cursor()
    seen = 0
    for batch in batches:
        for statement in next(plan_of(batch, CLOCK)).split("; "):
            if statement.startswith(("SELECT", "UPDATE", "DELETE", "INSERT")):
                cursor.execute(f"EXPLAIN {statement}")
                for row in cursor.fetchall():
                    if row[2] in ("retrysafe_records", "seen"):
                        seen += 1
                        assert row[3] in ("const", "eq_ref", "range"), (statement[:200], row)
            else:
                cursor.execute(statement)
    assert seen >= len(batches)
    connection.close()


# --- time ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("zone", ["+13:00", "-11:30", "SYSTEM"])
def test_the_time_is_the_same_in_every_zone(address, setting, zone):
    """Milliseconds since 1970 in UTC, whatever the server believes about where it is."""
    setting("time_zone", zone)
    store = MysqlStore(address)
    store.open()
    before_ms = host_clock()
    found = store.perform(claiming())
    assert before_ms - 1_000 <= found.now_ms <= host_clock() + 1_000
    assert found.record.created_at_ms == found.now_ms
    store.close()


# --- processes and crashes ----------------------------------------------------------------------

WORKER = """
import asyncio, secrets, sys
from dataclasses import replace
from retrysafe.stores.location import open_store
from tests.stores.test_mysql_batches import claiming, completing
store = open_store(sys.argv[1])
store.open()
async def one():
    while True:
        claim = claiming()
        await store.submit(claim)
        assert await store.submit(completing(claim, claim.record_id * 30))
        print(claim.record_id.hex(), flush=True)
async def main():
    await asyncio.gather(*(one() for _ in range(16)))
asyncio.run(main())
"""


@pytest.mark.parametrize("victim", ["server", "process"])
def test_what_was_acknowledged_survives_a_kill(own, victim):
    """The server, or the process, is killed in the middle of its work: what was acknowledged is there afterwards."""
    own.start()
    address = own.database("shop")
    url = f"mysql://{USER}:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{address.port}/shop"
    acknowledged: set[str] = set()
    command = [sys.executable, "-c", WORKER, url]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        while len(acknowledged) < 300:
            acknowledged.add(worker.stdout.readline().strip())
        if victim == "server":
            own.stop(signal.SIGKILL)
        else:
            worker.kill()
        said, _ = worker.communicate(timeout=60)
        acknowledged.update(said[: said.rfind("\n") + 1].split())
        assert worker.returncode != 0
    if victim == "server":
        own.start()
    store = MysqlStore(address)
    store.open()
    for line in acknowledged:
        found = store.perform(Read(bytes.fromhex(line)))
        assert found is not None
        assert found.record.state is State.COMPLETED
        assert found.record.response == bytes.fromhex(line) * 30
    store.close()


def test_a_server_that_is_gone_is_unavailable_until_it_is_back(own):
    """Killed and started again, under an open store: in between it is unavailable, then all is as it was."""
    own.start()
    store = MysqlStore(own.database("shop"))
    store.open()
    claims = [claiming(), claiming()]

    async def main():
        await together(store, claims)
        await together(store, [completing(claims[0])])
        own.stop(signal.SIGKILL)
        for transition in (claiming(), completing(claims[1])):
            (failure,) = await together(store, [transition])
            assert isinstance(failure, StoreUnavailable)
            assert PASSWORD not in str(failure)
        with pytest.raises(StoreUnavailable):
            store.perform(completing(claims[1]))
        own.start()
        assert await together(store, [completing(claims[1])]) == [True]
        assert store.perform(claims[0]).record.state is State.COMPLETED

    asyncio.run(main())
    assert state(store, claims[1]) is State.COMPLETED
    store.close()


def test_both_sides_of_a_fork_work(store):
    """A store that was open when the process forked works on both sides, each on connections of its own."""
    before, in_the_child, after = claiming(), claiming(), claiming()
    store.perform(before)
    store.perform(completing(claiming()))

    def work():
        assert store.perform(completing(before))
        assert asyncio.run(together(store, [in_the_child]))[0].record.token == in_the_child.token
        store.close()
        return "done"

    assert in_child(os.fork, work) == "done"
    store.perform(after)
    assert state(store, before) is State.COMPLETED
    assert state(store, in_the_child) is State.IN_PROGRESS
    assert asyncio.run(together(store, [completing(in_the_child)])) == [True]


def test_what_was_idle_for_long_is_made_anew(store, monkeypatch):
    """A connection that was silent for so long that something might have forgotten it is not asked anything."""
    store.perform(claiming())
    session = store._lanes._threads[0]._session
    assert session.connected
    now_s = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now_s + IDLE_S_MAX)
    assert not session.connected
    wire = session._wire
    assert store.perform(claiming())
    assert session._wire is not wire


def bytes_of(number):
    return number.to_bytes(32)


def test_stores_of_two_processes_are_one(tmp_path):
    """Two stores race for many records: each has one owner, which both see, and is settled by one of them."""
    clock = ManualClock()
    stores = [ManualMysqlStore(clock, tmp_path) for _ in range(2)]
    for store in stores:
        store.open()
    claims = [[claiming(bytes_of(number)) for number in range(200)] for _ in stores]
    go = threading.Barrier(2)

    def run(store, mine):
        go.wait()
        return asyncio.run(together(store, mine))

    def race(transitions):
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(run, stores, transitions))

    found = race(claims)
    tokens = [[one.record.token for one in each] for each in found]
    assert tokens[0] == tokens[1]
    for number, token in enumerate(tokens[0]):
        assert token in {claims[0][number].token, claims[1][number].token}
    for event in (Event.RELEASE, Event.RECLAIM):
        owned = [Claim(bytes_of(number), token, 1) for number, token in enumerate(tokens[0])]
        moves = [[transition_of(event, claim, None) for claim in owned] for _ in stores]
        answers = race(moves)
        assert [sum(pair) for pair in zip(*answers, strict=True)] == [1] * len(tokens[0])
    for store in stores:
        store.close()


# --- what is not promised -----------------------------------------------------------------------


def test_a_failover_forgets_what_was_not_replicated(own):
    """A replica is refused while it is one. When it takes over without a record, that is claimed a second time."""
    own.start("--log-bin=binlog", "--server-id=1", "--sync-binlog=1")
    replica = Mariadb()
    try:
        replica.start("--server-id=2", "--read-only=ON")
        replica.ask(
            f"CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {own.port}, MASTER_USER = '{USER}',"
            f" MASTER_PASSWORD = '{PASSWORD}', MASTER_USE_GTID = slave_pos"
        )
        replica.ask("START SLAVE")
        address = own.database("shop")
        primary, standby = MysqlStore(address), MysqlStore(replace(address, port=replica.port))
        primary.open()
        received, missed = claiming(), claiming()
        primary.perform(received)
        ((position,),) = own.ask("SELECT @@gtid_binlog_pos")
        assert replica.ask(f"SELECT MASTER_GTID_WAIT('{position}', 30)") == ((0,),)
        with pytest.raises(StoreUnusable, match="read-only"):
            standby.open()
        replica.ask("STOP SLAVE")
        assert primary.perform(missed).record.token == missed.token
        own.stop(signal.SIGKILL)
        replica.ask("SET GLOBAL read_only = OFF")
        standby.open()
        again = [claiming(received.record_id), claiming(missed.record_id)]
        found = asyncio.run(together(standby, again))
        assert [one.record.token for one in found] == [received.token, again[1].token]
        primary.close()
        standby.close()
    finally:
        replica.remove()


# --- the page that explains it ------------------------------------------------------------------


def test_what_the_page_grants_suffices(own):
    """The database, the account and the URL of docs/how-to/mysql.md, as they stand there, are enough."""
    own.start()
    page = (ROOT / "docs" / "how-to" / "mysql.md").read_text("utf-8")
    (granting,) = re.findall(r"```text\n(CREATE .*?)```", page, re.DOTALL)
    for statement in granting.strip().splitlines():
        own.ask(statement)
    (url,) = re.findall(r'store="(.*?)"', page)
    store = open_store(url.replace("3306", str(own.port)))
    store.open()
    claims = [claiming(), claiming()]
    asyncio.run(together(store, claims))
    assert asyncio.run(together(store, map(completing, claims))) == [True, True]
    assert store.perform(Purge()) == Purged(0, 0, more=False)
    assert store.perform(CountAnswers((AnswerCount("*", 2, 1),)))
    assert store.perform(TakeStats()).answers == (AnswerCount("*", 2, 1),)
    store.close()
