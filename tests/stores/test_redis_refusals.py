"""What a server refuses, what it may not be, and what is said about it."""

from __future__ import annotations

import re
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from retrysafe.errors import StoreError, StoreUnavailable, StoreUnusable
from retrysafe.model import State
from retrysafe.protocol.transitions import (
    AddHistory,
    AnswerCount,
    CompleteIfHeld,
    CountAnswers,
    DiscardIfHeld,
    KeepJournalIfHeld,
    ListAbandoned,
    ListRecords,
    ListResponses,
    Purge,
    Read,
    ReadDetails,
    ReplaceResponseIfSame,
    TakeStats,
)
from retrysafe.testing.subject import KEEP_MS, LIFETIME_MS, RESPONSE
from tests.stores.redis_callers import WAYS, caller, claim_of, claiming
from tests.stores.redis_proxy import proxy
from tests.stores.redis_servers import cluster, server, until

PASSWORD = "p%40ss:w%2Frd"
SPOKEN = "p@ss:w/rd"


@pytest.fixture
def one_server(tmp_path):
    with server(tmp_path) as one:
        yield one


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru", "volatile-ttl", "allkeys-random"])
@pytest.mark.parametrize("way", WAYS)
def test_an_evicting_server_is_refused(way, policy, one_server):
    """It would forget records, and what they protect would run again. Whoever wants that says so in so many words."""
    one_server.ask("CONFIG", "SET", "maxmemory-policy", policy)
    with (
        caller(way, f"redis://{one_server.address}", opened=False) as one,
        pytest.raises(StoreUnusable, match=f"{policy}.*noeviction"),
    ):
        one.store.open()
    with caller(way, f"redis://{one_server.address}?i_accept_double_execution=true") as one:
        one.do(claiming())


def test_an_evicting_node_of_a_cluster_is_refused(tmp_path):
    """Every node is looked at."""
    with cluster(tmp_path) as nodes:
        nodes[2].ask("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
        with (
            caller("blocking", f"redis+cluster://{nodes[0].address}", opened=False) as one,
            pytest.raises(StoreUnusable, match="noeviction"),
        ):
            one.store.open()


def test_a_node_of_a_cluster_is_no_single_server(tmp_path):
    """Under redis:// it would refuse two records of three: it is refused as a whole, with the URL that serves."""
    with (
        cluster(tmp_path) as nodes,
        caller("lean", f"redis://{nodes[0].address}", opened=False) as one,
        pytest.raises(StoreUnusable, match=r"redis\+cluster://"),
    ):
        one.do(claiming())


@pytest.mark.parametrize("way", WAYS)
def test_a_full_server_takes_no_claim_and_settles_and_replays(way, one_server):
    """Memory is full: nothing new runs, what ran is recorded, what was recorded replays."""
    with caller(way, f"redis://{one_server.address}") as one:
        one.warm_up()
        running, done = claiming(), claiming()
        one.do(running)
        one.do(done)
        one.do(CompleteIfHeld(claim_of(done), RESPONSE, LIFETIME_MS, KEEP_MS))
        one_server.ask("CONFIG", "SET", "maxmemory", "1mb")
        with pytest.raises(StoreUnavailable, match="memory is full"):
            one.do(claiming())
        assert one.do(CompleteIfHeld(claim_of(running), RESPONSE, LIFETIME_MS, KEEP_MS))
        assert one.do(claiming_again(done)).record.response == RESPONSE
        one_server.ask("CONFIG", "SET", "maxmemory", "0")
        one.do(claiming())


def claiming_again(claim):
    """Another request with the same key."""
    return type(claim)(claim.record_id, b"t" * 16, claim.fingerprint, claim.lease_ms, claim.forget_after_ms)


@pytest.mark.parametrize("way", WAYS)
def test_a_demoted_primary_is_not_asked(way, one_server, tmp_path):
    """A replica may lag: it is refused for reading too. Once it is a primary again it serves."""
    with caller(way, f"redis://{one_server.address}") as one:
        claim = claiming()
        one.do(claim)
        one_server.ask("REPLICAOF", "127.0.0.1", one_server.port)
        for transition in (claiming(), Read(claim.record_id), claim):
            with pytest.raises(StoreUnavailable):
                one.do(transition)
        one_server.ask("REPLICAOF", "NO", "ONE")
        assert one.do(claim).record.token == claim.token


@pytest.mark.parametrize("way", WAYS)
def test_a_busy_server(way, one_server):
    """A script of somebody else's holds it up: it says so, and nothing was done."""
    with caller(way, f"redis://{one_server.address}") as one:
        one.warm_up()
        one_server.ask("CONFIG", "SET", "busy-reply-threshold", 1)
        endless = threading.Thread(target=_run_for_ever, args=(one_server,))
        endless.start()
        try:
            until(lambda: _said(one, claiming()).startswith("StoreUnavailable: ") and _is_busy(one), "it is busy")
        finally:
            one_server.ask("SCRIPT", "KILL")
            endless.join()
        one.do(claiming())


def _run_for_ever(one_server):
    with pytest.raises(Exception, match="killed"):
        one_server.ask("EVAL", "while true do end", 0)


def _is_busy(one):
    return "BUSY; a script has been running" in _said(one, claiming())


def _said(one, transition):
    try:
        one.do(transition)
    except StoreError as error:
        return f"{type(error).__name__}: {error}"
    return "done"


@pytest.mark.parametrize("way", WAYS)
def test_scripts_that_a_server_forgot_are_loaded_again(way, one_server):
    """After SCRIPT FLUSH, and after a restart, every transition loads what it needs and goes on."""
    with caller(way, f"redis://{one_server.address}") as one:
        claim = claiming()
        for transition in (claim, CompleteIfHeld(claim_of(claim), RESPONSE, LIFETIME_MS, KEEP_MS)):
            one.do(claiming())
            one_server.ask("SCRIPT", "FLUSH")
            assert one.do(transition)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("setting", "kind", "said"),
    [
        (("CONFIG", "SET", "min-replicas-to-write", "1"), StoreUnavailable, "NOREPLICAS"),
        (("ACL", "SETUSER", "default", "-evalsha"), StoreUnusable, "NOPERM"),
        (("CONFIG", "SET", "requirepass", "secret"), StoreUnusable, "NOAUTH"),
    ],
)
def test_what_a_server_is_set_to_refuse(way, setting, kind, said, one_server):
    """Its code, what to do about it, and nothing of what was sent."""
    one_server.ask(*setting)
    claim = claiming()
    with caller(way, f"redis://{one_server.address}", opened=False) as one, pytest.raises(kind, match=said) as refused:
        one.do(claim)
    assert claim.record_id.hex()[8:] not in str(refused.value)


@pytest.mark.parametrize("way", WAYS)
def test_records_of_a_newer_release_are_not_touched(way, one_server):
    """A record of another version is refused by every script, and stays as it was."""
    with caller(way, f"redis://{one_server.address}") as one:
        claim = claiming()
        one.do(claim)
        key, _ = one.store._layout.keys(claim.record_id)
        one_server.ask("SETRANGE", key, 0, b"\x02")
        before = one_server.ask("GET", key)
        for transition in (claim, Read(claim.record_id), DiscardIfHeld(claim_of(claim))):
            with pytest.raises(StoreUnusable, match="newer release"):
                one.do(transition)
        assert one_server.ask("GET", key) == before


@pytest.mark.parametrize("way", WAYS)
def test_keys_of_another_application(way, one_server):
    """A key that holds something else is not written over."""
    with caller(way, f"redis://{one_server.address}") as one:
        claim = claiming()
        key, _ = one.store._layout.keys(claim.record_id)
        one_server.ask("HSET", key, "a", "b")
        with pytest.raises(StoreError):
            one.do(claim)
        assert one_server.ask("HGET", key, "a") == b"b"


@pytest.mark.parametrize("way", WAYS)
def test_a_password_and_a_database(way, tmp_path):
    """The URL has both; a wrong password is refused, and no password is in a name or an error."""
    with server(tmp_path, requirepass=SPOKEN) as locked:
        with caller(way, f"redis://:{PASSWORD}@{locked.address}/3") as one:
            one.do(claiming())
            assert one.store.name == f"redis {locked.address}/3"
            with locked.client(db=3) as client:
                assert client.dbsize() == 2  # the record and the secret
        with caller(way, f"redis://:wr0ng@{locked.address}", opened=False) as one:
            for attempt in (lambda: one.do(claiming()), one.store.open):
                with pytest.raises(StoreUnusable, match="WRONGPASS") as refused:
                    attempt()
                assert "wr0ng" not in str(refused.value) + repr(one.store._place)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subject = ["-subj", "/CN=redis", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["-keyout", key, "-out", cert, "-days", "2", "-newkey", "rsa:2048", "-nodes"]
    subprocess.run(["openssl", "req", "-x509", *made, *subject], check=True, capture_output=True)
    return cert, key


def _tls(certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    return context


@pytest.mark.parametrize("way", WAYS)
def test_tls(way, certificate, one_server):
    """A server whose certificate the authority vouches for is believed, and reconnected to."""
    with (
        proxy(one_server.port, _tls(certificate)) as network,
        caller(way, f"rediss://127.0.0.1:{network.port}?ca={certificate[0]}") as one,
    ):
        claim = claiming()
        assert one.do(claim).record.token == claim.token
        network.cut()
        until(lambda: "done" in _said(one, claim), "it is connected again")


@pytest.mark.parametrize("way", WAYS[:2])
def test_a_certificate_that_nobody_vouches_for(way, certificate, one_server):
    """Whoever cannot prove who it is, is sent nothing."""
    with proxy(one_server.port, _tls(certificate)) as network:
        before = one_server.calls()
        with caller(way, f"rediss://127.0.0.1:{network.port}", opened=False) as one:
            assert "CERTIFICATE_VERIFY_FAILED" in _said(one, claiming()).upper()
        assert one_server.calls().get("evalsha") == before.get("evalsha")


PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "redis.md"


@pytest.mark.parametrize("way", WAYS)
def test_the_permissions_on_the_page_are_enough(way, one_server):
    """With what docs/how-to/redis.md lists, applications can do all that they do, and operators too."""
    listed = PAGE.read_text("utf-8").partition("access control lists. It needs")[2].partition("besides")[0]
    applications, operators = (re.findall(r"[~+][a-z|:*]+", part) for part in listed.split("`retrysafe purge`"))
    one_server.ask("ACL", "SETUSER", "shop", "on", ">pass", "resetkeys", "nocommands", *applications)
    with caller(way, f"redis://shop:pass@{one_server.address}/1?wait=1&wait_timeout=20ms") as one:
        claim = claiming()
        with pytest.raises(StoreUnavailable, match="0 of the 1 replicas"):
            one.do(claim)
        assert one.do(KeepJournalIfHeld(claim_of(claim), b"journal"))
        assert one.do(AddHistory(claim.record_id, b"entry", KEEP_MS))
        details = one.do(ReadDetails(claim.record_id))
        assert (details.journal, details.history) == (b"journal", (b"entry",))
        assert one.do(CompleteIfHeld(claim_of(claim), RESPONSE, LIFETIME_MS, KEEP_MS))
        assert one.do(Read(claim.record_id)).record.response == RESPONSE
        assert one.do(CountAnswers((AnswerCount("*", 1, 2),)))
        with pytest.raises(StoreUnusable, match="NOPERM"):
            one.do(Purge())
        one_server.ask("ACL", "SETUSER", "shop", *operators)
        one.do(Purge())
        assert len(one.do(ListRecords((State.COMPLETED,))).records) == 1
        assert one.do(ListAbandoned()).records == ()
        assert len(one.do(ListResponses()).responses) == 1
        assert one.do(TakeStats()).answers == (AnswerCount("*", 1, 2),)
        assert one.do(ReplaceResponseIfSame(claim.record_id, claim.token, RESPONSE, b"other bytes"))
