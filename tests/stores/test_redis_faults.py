"""What becomes of a transition when the server, the network or the caller fails in the middle of it."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import secrets
import signal
import threading

import pytest
import uvloop

from retrysafe.errors import StoreError, StoreUnavailable
from retrysafe.model import State
from retrysafe.protocol.transitions import CompleteIfHeld, DiscardIfHeld, Read, ReleaseIfHeld
from retrysafe.stores.redis import RedisStore
from retrysafe.stores.redis_place import place_of
from retrysafe.testing.subject import KEEP_MS, LIFETIME_MS, RESPONSE
from tests.stores.redis_callers import WAYS, caller, claim_of, claiming
from tests.stores.redis_proxy import proxy
from tests.stores.redis_servers import server, until

IN_DOUBT = "may or may not have been applied"


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory):
    """A server for the tests of this module that leave it as it was."""
    with server(tmp_path_factory.mktemp("redis")) as one:
        yield one


@pytest.fixture
def network(redis_server):
    """A network before it."""
    with proxy(redis_server.port) as one:
        yield one


@pytest.mark.parametrize("way", WAYS)
def test_a_lost_reply_is_in_doubt_and_the_claim_recognises_itself(way, network):
    """The server applied the claim and its answer never came: repeated, it finds its own token."""
    with caller(way, f"redis://127.0.0.1:{network.port}") as one:
        one.do(claiming())
        claim = claiming()
        network.cut_replies_after(0)
        with pytest.raises(StoreUnavailable, match=IN_DOUBT):
            one.do(claim)
        network.heal()
        found = one.do(claim)
        assert found.record.token == claim.token
        assert found.now_ms >= found.record.claimed_at_ms


@pytest.mark.parametrize("way", WAYS)
def test_a_completion_whose_reply_is_lost_was_applied(way, network):
    """In doubt means: look. The record has the response."""
    with caller(way, f"redis://127.0.0.1:{network.port}") as one:
        one.warm_up()
        claim = claiming()
        one.do(claim)
        network.cut_replies_after(0)
        with pytest.raises(StoreUnavailable, match=IN_DOUBT):
            one.do(CompleteIfHeld(claim_of(claim), RESPONSE, LIFETIME_MS, KEEP_MS))
        network.heal()
        assert one.do(Read(claim.record_id)).record.response == RESPONSE
        assert not one.do(CompleteIfHeld(claim_of(claim), b"again", LIFETIME_MS, KEEP_MS))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reply_bytes", [1, 40, 5_000, 1 << 20])
def test_a_connection_that_is_cut_in_the_middle_of_a_reply(way, reply_bytes, network):
    """Half an answer is no answer, and the next connection begins with a whole one."""
    with caller(way, f"redis://127.0.0.1:{network.port}") as one:
        one.warm_up()
        claim = claiming()
        one.do(claim)
        response = secrets.token_bytes(3 << 20)
        assert one.do(CompleteIfHeld(claim_of(claim), response, LIFETIME_MS, KEEP_MS))
        network.cut_replies_after(reply_bytes)
        with pytest.raises(StoreUnavailable, match=IN_DOUBT):
            one.do(Read(claim.record_id))
        network.heal()
        assert one.do(Read(claim.record_id)).record.response == response


def test_all_that_is_in_flight_is_in_doubt(network):
    """Of a hundred commands in one write, those whose answers came are done and the rest are in doubt."""
    with caller("lean", f"redis://127.0.0.1:{network.port}") as one:
        one.do(claiming())
        claims = [claiming() for _ in range(100)]
        network.cut_replies_after(2_000)
        answers = one.together(claims)
        network.heal()
        lost = [answer for answer in answers if isinstance(answer, StoreUnavailable)]
        assert 50 < len(lost) < 100
        assert answers[-len(lost) :] == lost
        assert all(IN_DOUBT in str(failure) for failure in lost)
        assert len({id(failure) for failure in lost}) == len(lost)
        again = one.together(claims)
        assert [found.record.token for found in again] == [claim.token for claim in claims]


@pytest.mark.parametrize("way", WAYS)
def test_an_idle_connection_that_was_ended_is_made_again(way, network):
    """Whoever comes after a quiet night does not notice."""
    with caller(way, f"redis://127.0.0.1:{network.port}") as one:
        one.do(claiming())
        network.cut()
        claim = claiming()
        until(lambda: _tried(one, claim), "the store is back")
        assert one.do(claim).record.token == claim.token


def _tried(one, transition):
    try:
        one.do(transition)
    except StoreUnavailable:
        return False
    return True


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_is_not_there(way, tmp_path):
    """Nothing was sent: it says where it looked, and what to look at."""
    with server(tmp_path) as gone:
        url = f"redis://127.0.0.1:{gone.port}"
    with caller(way, url, opened=False) as one:
        with pytest.raises(StoreUnavailable, match=str(gone.port)):
            one.do(claiming())
        with pytest.raises(StoreUnavailable):
            one.store.open()


@pytest.mark.parametrize("way", WAYS)
def test_a_killed_server_comes_back(way, tmp_path):
    """While it is gone the store is unavailable; when it is back, so are records that it had written to disk."""
    with (
        server(tmp_path, appendonly="yes", appendfsync="always") as one_server,
        caller(way, f"redis://{one_server.address}") as one,
    ):
        claim = claiming()
        one.do(claim)
        one_server.kill()
        with pytest.raises(StoreUnavailable):
            one.do(Read(claim.record_id))
        with pytest.raises(StoreUnavailable):
            one.do(Read(claim.record_id))
        one_server.start()
        assert one.do(Read(claim.record_id)).record.token == claim.token
        assert one.do(CompleteIfHeld(claim_of(claim), RESPONSE, LIFETIME_MS, KEEP_MS))


@pytest.mark.parametrize("way", WAYS)
def test_a_silent_server_is_given_up_on(way, tmp_path):
    """A server that stands still says nothing; after `timeout` what was sent is in doubt, and later it is there."""
    with (
        server(tmp_path) as one_server,
        caller(way, f"redis://{one_server.address}?timeout=300ms") as one,
    ):
        one.do(claiming())
        claim = claiming()
        os.kill(one_server.process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(StoreUnavailable, match=IN_DOUBT):
                one.do(claim)
        finally:
            os.kill(one_server.process.pid, signal.SIGCONT)
        until(lambda: _tried(one, claim), "it answers again")
        assert one.do(claim).record.token == claim.token


def test_a_slow_connection_is_not_a_silent_server(redis_server):
    """As long as answers come, nothing times out, however many wait."""
    with caller("lean", f"redis://{redis_server.address}?timeout=4s") as one:
        claims = [claiming() for _ in range(40)]
        one.together(claims)
        response = secrets.token_bytes(4 << 20)
        completions = [CompleteIfHeld(claim_of(claim), response, LIFETIME_MS, KEEP_MS) for claim in claims]
        assert one.together(completions) == [True] * 40  # 160 MiB, far beyond what a socket takes at once
        assert one.do(Read(claims[-1].record_id)).record.response == response
        redis_server.ask("FLUSHALL")


@pytest.mark.parametrize("way", WAYS[1:])
def test_a_store_that_is_closed_as_its_loop_ends_leaves_nothing_open(way, redis_server):
    """Closed in the last turn of the loop, the store lets go of its connection all the same."""
    store = RedisStore(place_of(f"redis://{redis_server.address}?client={way}"))
    store.open()

    async def use():
        await store.submit(claiming())
        store.close()

    asyncio.run(use())
    until(lambda: not _ours(redis_server), "no connection is left")


def _ours(redis_server):
    """The connections of stores to a server."""
    with redis_server.client() as client:
        return [one for one in client.client_list() if one["name"] == "retrysafe"]


@pytest.mark.parametrize("way", WAYS[1:])
def test_tasks_that_are_cancelled_mix_nothing_up(way, redis_server):
    """Tasks are cancelled at any moment of their transitions: every answer still belongs to its question."""
    with caller(way, f"redis://{redis_server.address}") as one:
        seed = secrets.randbits(32)
        chance = random.Random(seed)

        async def storm():
            claims = [claiming() for _ in range(300)]
            tasks = []
            for claim in claims:
                tasks.append(asyncio.create_task(_await(one.store.submit(claim))))
                if chance.random() < 0.5:
                    await asyncio.sleep(0)
                if chance.random() < 0.5:
                    chance.choice(tasks).cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return claims, await asyncio.gather(*(one.store.submit(Read(claim.record_id)) for claim in claims))

        claims, found = one.run(storm())
        assert [one.record.token for one in found] == [claim.token for claim in claims], seed


async def _await(future):
    return await future


def test_a_loop_may_end_in_the_middle(redis_server):
    """A loop that ends with commands under way leaves nothing behind, and the next loop goes on."""
    store = RedisStore(place_of(f"redis://{redis_server.address}"))
    store.open()
    claims = [claiming() for _ in range(50)]

    async def begin():
        futures = [store.submit(claim) for claim in claims]
        await asyncio.sleep(0)
        return futures

    assert all(future.done() and isinstance(future.exception(), StoreUnavailable) for future in asyncio.run(begin()))

    async def look():
        return await asyncio.gather(*(store.submit(claim) for claim in claims))

    found = asyncio.run(look())
    assert [one.record.token for one in found] == [claim.token for claim in claims]
    store.close()


@pytest.mark.parametrize("way", WAYS)
def test_a_store_that_was_open_before_a_fork(way, redis_server):
    """Parent and child each have their own connections afterwards, and neither reads the other's answers."""
    with caller(way, f"redis://{redis_server.address}") as one:
        one.do(claiming())
        results = multiprocessing.get_context("fork").SimpleQueue()
        child = multiprocessing.get_context("fork").Process(target=_in_the_child, args=(one.store, way, results))
        child.start()
        claims = [claiming() for _ in range(200)]
        found = [one.do(claim) for claim in claims]
        assert [one.record.token for one in found] == [claim.token for claim in claims]
        child.join(30)
        assert child.exitcode == 0
        assert results.get()


def _in_the_child(store, way, results):
    claims = [claiming() for _ in range(200)]

    async def submit():
        return [await store.submit(claim) for claim in claims]

    found = [store.perform(claim) for claim in claims] if way == "blocking" else asyncio.run(submit())
    results.put([one.record.token for one in found] == [claim.token for claim in claims])


@pytest.mark.parametrize("way", WAYS[1:])
def test_an_event_loop_that_was_forked_is_refused(way, redis_server):
    """A loop that both processes run would read each other's answers: asyncio knows, and the child's does nothing."""
    store = RedisStore(place_of(f"redis://{redis_server.address}?client={way}"))
    store.open()

    async def fork():
        await store.submit(claiming())
        child = os.fork()
        if child == 0:
            refused = 1
            try:
                store.submit(claiming())
            except RuntimeError:
                refused = 0
            finally:
                os._exit(refused)
        _, status = os.waitpid(child, 0)  # noqa: ASYNC222 - nothing else runs in this loop
        claim = claiming()
        assert (await store.submit(claim)).record.token == claim.token
        return os.waitstatus_to_exitcode(status)

    assert asyncio.run(fork()) == 0
    store.close()


def test_a_closed_store_finishes_what_was_begun(redis_server):
    """What was submitted before `close` is answered; what comes after is refused."""
    store = RedisStore(place_of(f"redis://{redis_server.address}"))
    store.open()
    claims = [claiming() for _ in range(20)]

    async def run():
        first = store.submit(claiming())
        await first
        futures = [store.submit(claim) for claim in claims]
        store.close()
        with pytest.raises(StoreUnavailable):
            await store.submit(claiming())
        return await asyncio.gather(*futures)

    assert [one.record.token for one in asyncio.run(run())] == [claim.token for claim in claims]


def test_uvloop(redis_server):
    """The event loop that most servers run on does as the standard one does, to its end."""
    store = RedisStore(place_of(f"redis://{redis_server.address}"))
    store.open()
    claims = [claiming() for _ in range(100)]

    async def run():
        return await asyncio.gather(*map(store.submit, claims))

    for _ in range(2):
        assert [one.record.token for one in uvloop.run(run())] == [claim.token for claim in claims]
    store.close()


def test_many_threads_and_loops_share_a_store(redis_server):
    """Each loop has its connection, each thread takes one from the pool, and all see the same records."""
    store = RedisStore(place_of(f"redis://{redis_server.address}"))
    store.open()
    claim = claiming()
    store.perform(claim)
    seen: list[bytes] = []

    async def loop():
        found = await asyncio.gather(*(store.submit(claim) for _ in range(50)))
        seen.extend(one.record.token for one in found)

    threads = [threading.Thread(target=asyncio.run, args=(loop(),)) for _ in range(4)]
    threads += [threading.Thread(target=lambda: seen.append(store.perform(claim).record.token)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [claim.token] * 220
    store.close()


@pytest.mark.parametrize("way", WAYS)
def test_settlements_that_free_the_key(way, redis_server):
    """Against the server's own clock: released is claimed again, discarded is gone."""
    with caller(way, f"redis://{redis_server.address}") as one:
        released, discarded = claiming(), claiming()
        one.do(released)
        one.do(discarded)
        assert one.do(ReleaseIfHeld(claim_of(released), KEEP_MS))
        assert one.do(DiscardIfHeld(claim_of(discarded)))
        assert one.do(Read(released.record_id)).record.state is State.RETRYABLE
        assert one.do(Read(discarded.record_id)) is None


def test_answers_that_went_astray_are_noticed(redis_server):
    """Something that swaps answers on the way reaches nobody: each names the record that it is about."""
    with caller("blocking", f"redis://{redis_server.address}") as one:
        mine, theirs = claiming(), claiming()
        one.do(mine)
        one.do(theirs)
        mine_key, _ = one.store._layout.keys(mine.record_id)
        their_key, _ = one.store._layout.keys(theirs.record_id)
        redis_server.ask("COPY", their_key, mine_key, "REPLACE")
        with pytest.raises(StoreError, match="not about the record"):
            one.do(Read(mine.record_id))


@pytest.mark.parametrize("client", ["lean", "redis-py"])
@pytest.mark.parametrize("turns", range(6))
def test_a_loop_may_end_in_the_turn_of_a_submission(client, turns, redis_server):
    """Whichever turn is the last, the task that waits comes to an end, and so does the loop."""
    store = RedisStore(place_of(f"redis://{redis_server.address}?client={client}"))
    store.open()

    async def use():
        for _ in range(turns):
            await asyncio.sleep(0)
        await store.submit(claiming())

    async def main():
        tasks.append(asyncio.create_task(use()))
        for _ in range(2):
            await asyncio.sleep(0)

    tasks: list[asyncio.Task[None]] = []
    ending = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
    ending.start()
    ending.join(30)
    assert not ending.is_alive()
    assert tasks[0].done()
    store.close()
