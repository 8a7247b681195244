"""What the store in Redis costs, how long it keeps what, and what replicas, sentinels and clusters do to it."""

from __future__ import annotations

import os
import signal

import pytest

from retrysafe.errors import StoreUnavailable
from retrysafe.model import State
from retrysafe.protocol.transitions import (
    AnswerCount,
    ClaimIfRetryable,
    CompleteIfHeld,
    CountAnswers,
    ListResponses,
    Purge,
    Purged,
    Read,
    ReleaseIfHeld,
    TakeOverIfLapsed,
    TakeStats,
)
from retrysafe.stores.redis_scripts import GRACE_MS
from retrysafe.testing.subject import KEEP_MS, LEASE_MS, LIFETIME_MS, token
from tests.stores.redis_callers import WAYS, caller, claim_of, claiming
from tests.stores.redis_servers import cluster, sentinels, server, until

RECORD_BYTES_MAX = 950
HOT = ("evalsha", "eval", "get", "set", "scan", "wait", "multi", "exec", "time", "info")
SPARE_MS = 60_000


@pytest.fixture
def one_server(tmp_path):
    with server(tmp_path) as one:
        yield one


def go_on(one, key, kept_ms):
    """As if the time that a key is kept for were nearly over."""
    assert 0 <= kept_ms - one.ask("PTTL", key) < GRACE_MS
    one.ask("PEXPIRE", key, 50)


@pytest.mark.parametrize("way", WAYS)
def test_round_trips(way, one_server):
    """A first request is two commands, a replay is one; none of them is a SCAN."""
    with caller(way, f"redis://{one_server.address}") as one:
        one.warm_up()
        claim = claiming()
        before = one_server.calls()
        one.do(claim)
        one.do(CompleteIfHeld(claim_of(claim), bytes(500), LIFETIME_MS, KEEP_MS))
        first = one_server.calls()
        one.do(claim)
        replay = one_server.calls()
    sent = {name: first.get(name, 0) - before.get(name, 0) for name in HOT}
    assert sent["evalsha"] == 2
    assert replay["evalsha"] - first["evalsha"] == 1
    assert (sent["scan"], sent["wait"], sent["eval"], sent["multi"]) == (0, 0, 0, 0)
    # GET, SET and TIME are the scripts' own: claim 1 and complete 1, claim 1 and complete 2, one each
    assert (sent["get"], sent["set"], sent["time"]) == (2, 3, 2)


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_knows_no_script(way, one_server):
    """It is given each script of a plan that it does not know, and not only the first."""
    with caller(way, f"redis://{one_server.address}") as one:
        for transition in (CountAnswers((AnswerCount("*", 1, 2),)), TakeStats(), ListResponses(), Purge()):
            one_server.ask("SCRIPT", "FLUSH")
            one.do(transition)
        assert one.do(TakeStats()).answers == (AnswerCount("*", 1, 2),)


@pytest.mark.parametrize("way", WAYS)
def test_looking_at_many_records(way, one_server):
    """A census and a list find all that is there, of this prefix alone; a response that is gone is no harm."""
    with caller(way, f"redis://{one_server.address}?prefix=shop[a]*") as one:
        with caller("blocking", f"redis://{one_server.address}?prefix=shopa") as neighbour:
            neighbour.do(claiming())
            claims = [claiming() for _ in range(1_200)]
            for claim in claims:
                one.do(claim)
                one.do(CompleteIfHeld(claim_of(claim), claim.token, LIFETIME_MS, KEEP_MS))
            stats = one.do(TakeStats())
        ((count,), listed) = stats.records, one.do(ListResponses(batch_max=5_000))
        assert (count.state, count.records, count.response_bytes) == (State.COMPLETED, 1_200, 16 * 1_200)
        assert {stored.record_id: stored.head for stored in listed.responses} == {
            claim.record_id: claim.token for claim in claims
        }
        assert listed.next_after is None
        sent = one_server.calls()
        assert sent["scan"] < 20
        one_server.ask("DEL", *(one.store._layout.keys(claim.record_id)[1] for claim in claims))
        assert one.do(ListResponses()).responses == ()
        ((count,),) = (one.do(TakeStats()).records,)
        assert (count.records, count.response_bytes) == (1_200, 0)


def test_bytes_of_a_record(one_server):
    """With a response of 500 bytes, a record takes at most 950 bytes of the server's memory; its tombstone a third."""
    with caller("blocking", f"redis://{one_server.address}") as one:
        claim = claiming()
        one.do(claim)
        one.do(CompleteIfHeld(claim_of(claim), bytes(500), LIFETIME_MS, KEEP_MS))
        key, response_key = one.store._layout.keys(claim.record_id)
    record_bytes = one_server.ask("MEMORY", "USAGE", key)
    assert record_bytes + one_server.ask("MEMORY", "USAGE", response_key) <= RECORD_BYTES_MAX
    assert record_bytes <= RECORD_BYTES_MAX / 3


def test_how_long_the_server_keeps_what(one_server):
    """A claim for its lease and thirty days, a response for its lifetime, a tombstone for thirty days; and a minute."""
    with caller("blocking", f"redis://{one_server.address}") as one:
        claim = claiming()
        one.do(claim)
        key, response_key = one.store._layout.keys(claim.record_id)
        assert 0 <= LEASE_MS + KEEP_MS + GRACE_MS - one_server.ask("PTTL", key) < SPARE_MS
        one.do(CompleteIfHeld(claim_of(claim), bytes(500), LIFETIME_MS, KEEP_MS))
        assert 0 <= LIFETIME_MS + KEEP_MS + GRACE_MS - one_server.ask("PTTL", key) < SPARE_MS
        assert 0 <= LIFETIME_MS + GRACE_MS - one_server.ask("PTTL", response_key) < SPARE_MS
        assert one_server.ask("PTTL", "retrysafe:secret") == -1


def test_the_server_drops_a_response_and_keeps_the_tombstone(one_server):
    """At the end of the lifetime the response is gone, by itself; the record still says that it was completed."""
    with caller("blocking", f"redis://{one_server.address}") as one:
        claim = claiming()
        one.do(claim)
        one.do(CompleteIfHeld(claim_of(claim), bytes(500), 30, KEEP_MS))
        go_on(one_server, one.store._layout.keys(claim.record_id)[1], 30 + GRACE_MS)
        until(lambda: one.do(Read(claim.record_id)).record.response is None, "the response is gone")
        found = one.do(claim)
        assert found.record.state is State.COMPLETED
        assert found.record.expires_at_ms <= found.now_ms
        assert one.do(Purge()) == Purged(expired=1, forgotten=0, more=False)
        assert one.do(Read(claim.record_id)).record.state is State.EXPIRED
        assert one_server.ask("PTTL", one.store._layout.keys(claim.record_id)[0]) > LIFETIME_MS


def test_the_server_forgets_by_itself(one_server):
    """When its time to be forgotten has come a record is gone, and nothing had to purge it."""
    with caller("blocking", f"redis://{one_server.address}") as one:
        claim = claiming()
        one.do(claim)
        one.do(ReleaseIfHeld(claim_of(claim), 30))
        assert one.do(Read(claim.record_id)) is not None
        go_on(one_server, one.store._layout.keys(claim.record_id)[0], 30 + GRACE_MS)
        until(lambda: one.do(Read(claim.record_id)) is None, "the record is gone")


@pytest.mark.parametrize("way", WAYS)
def test_a_claim_that_replicas_are_to_have(way, one_server, tmp_path):
    """With wait=1 a claim counts once the replica has it: on the connection that wrote it, in every kind of claim."""
    with server(tmp_path, replicaof=f"127.0.0.1 {one_server.port}") as replica:
        until(lambda: _replicates(one_server), "it follows")
        one_server.ask("CONFIG", "RESETSTAT")
        with caller(way, f"redis://{one_server.address}?wait=1&wait_timeout=2s") as one:
            claim = claiming()
            assert one.do(claim).record.token == claim.token
            assert one_server.calls()["wait"] == 1
            assert replica.ask("EXISTS", one.store._layout.keys(claim.record_id)[0]) == 1
            one.do(claiming_again(claim))
            assert one_server.calls()["wait"] == 1  # who did not get it has nothing to wait for
            one.do(ReleaseIfHeld(claim_of(claim), KEEP_MS))
            assert one.do(ClaimIfRetryable(claim.record_id, claim.token, second := token(), 1, KEEP_MS))
            until(
                lambda: one.do(Read(claim.record_id)).now_ms > one.do(Read(claim.record_id)).record.lease_until_ms, ""
            )
            assert one.do(TakeOverIfLapsed(claim.record_id, second, token(), LEASE_MS, KEEP_MS))
            assert one_server.calls()["wait"] == 3
            os.kill(replica.process.pid, signal.SIGSTOP)
            lonely = claiming()
            with pytest.raises(StoreUnavailable, match="0 of the 1 replicas"):
                one.do(lonely)
            os.kill(replica.process.pid, signal.SIGCONT)
            assert one.do(lonely.undo())
            until(lambda: _acknowledged(one, claiming()), "the replica has caught up")


def claiming_again(claim):
    return type(claim)(claim.record_id, token(), claim.fingerprint, claim.lease_ms, claim.forget_after_ms)


def _replicates(primary):
    """A write reaches its replica, and the primary hears of it: a link that is up is not yet that."""
    with primary.client() as client:
        client.set("written", "to be replicated", ex=1)
        return client.wait(1, 200) == 1


def test_those_who_wait_for_replicas_wait_together(one_server, tmp_path):
    """However many claims come at once, a few WAITs are enough for all of them."""
    with server(tmp_path, replicaof=f"127.0.0.1 {one_server.port}"):
        until(lambda: _replicates(one_server), "it follows")
        one_server.ask("CONFIG", "RESETSTAT")
        with caller("lean", f"redis://{one_server.address}?wait=1") as one:
            claims = [claiming() for _ in range(64)]
            found = one.together(claims)
            assert [each.record.token for each in found] == [claim.token for claim in claims]
            assert one_server.calls()["wait"] <= 8


@pytest.mark.parametrize("way", ["blocking", "redis-py of sentinels"])
@pytest.mark.parametrize("wait", [0, 1])
def test_a_failover_may_forget_a_claim(way, wait, tmp_path):
    """Not guaranteed: a claim that was acknowledged and not yet replicated is granted again after a failover.

    With wait=1 it was never acknowledged, so that nothing ran under it.
    """
    with sentinels(tmp_path) as (primary, replica, watchers):
        hosts = ",".join(one.address for one in watchers)
        url = f"redis+sentinel://{hosts}/shop?timeout=2s&wait_timeout=300ms&wait={wait}"
        with caller(way, url) as one:
            survivor, lost = claiming(), claiming()
            one.do(survivor)
            until(lambda: replica.ask("DBSIZE") == 2, "the replica has the secret and the first claim")
            os.kill(replica.process.pid, signal.SIGSTOP)
            primary.ask("CLIENT", "KILL", "TYPE", "replica")
            acknowledged = _acknowledged(one, lost)
            assert acknowledged is (wait == 0)
            primary.kill()
            os.kill(replica.process.pid, signal.SIGCONT)
            until(lambda: _is_primary(replica), "the sentinels have made the replica the primary")
            until(lambda: _acknowledged(one, Read(survivor.record_id)), "the store has found the new primary")
            assert one.do(Read(survivor.record_id)).record.token == survivor.token
            assert one.do(Read(lost.record_id)) is None, "acknowledged or not, the new primary never had it"


def _acknowledged(one, transition):
    try:
        one.do(transition)
    except StoreUnavailable:
        return False
    return True


def _is_primary(one):
    with one.client() as client:
        return client.info("replication")["role"] == "master"


@pytest.mark.parametrize("way", ["blocking", "redis-py of a cluster"])
def test_records_that_move_to_another_node(way, tmp_path):
    """A slot is moved: the store follows the records, and a claim still holds."""
    with cluster(tmp_path) as nodes, caller(way, f"redis+cluster://{nodes[0].address}") as one:
        claims = [claiming() for _ in range(30)]
        for claim in claims:
            one.do(claim)
        key, _ = one.store._layout.keys(claims[0].record_id)
        slot = nodes[0].ask("CLUSTER", "KEYSLOT", key)
        source = next(node for node in nodes if slot in _slots(node))
        target = next(node for node in nodes if node is not source)
        ids = {node.port: node.ask("CLUSTER", "MYID").decode() for node in nodes}
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source.port])
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target.port])
        source.ask("MIGRATE", "127.0.0.1", target.port, key, 0, 5_000)
        for node in (target, source, *nodes):  # all of them, as redis-cli does, and the new owner first
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", ids[target.port])
        until(lambda: all(_is_settled(node, slot, target) for node in nodes), "the nodes agree on the slot")
        assert one.do(Read(claims[0].record_id)).record.token == claims[0].token
        for claim in claims:
            assert one.do(CompleteIfHeld(claim_of(claim), b"done", LIFETIME_MS, KEEP_MS))
        assert one.do(Purge()) == Purged(0, 0, more=False)


def _is_settled(node, slot, owner):
    """Whether a node serves, and knows whose the slot is."""
    if b"cluster_state:ok" not in node.ask("CLUSTER", "INFO"):
        return False
    return any(first <= slot <= last and at[1] == owner.port for first, last, at, *_ in node.ask("CLUSTER", "SLOTS"))


def _slots(node):
    ranges = node.ask("CLUSTER", "SLOTS")
    return {slot for first, last, owner, *_ in ranges if owner[1] == node.port for slot in range(first, last + 1)}
