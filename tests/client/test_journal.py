"""The journal of a client: what is written before anything is sent, what of it is kept, and how it is settled."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import uuid

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrysafe.client.attempt import Certainty, Schedule
from retrysafe.client.entry import Asked, Entry, read, written
from retrysafe.client.intent import intent
from retrysafe.client.journal import IntentChanged, Journal, Wish
from retrysafe.errors import CallerError, OutcomeUnknown, StoreUnusable
from retrysafe.faults import LoseResponse
from retrysafe.httpx import AsyncIdempotencyTransport, resume
from retrysafe.protocol.snapshot import Unreadable
from tests.client.clients import CLIENTS, QUICK, RESUME, Post, got
from tests.doors.servers import until

CONTENT = b"B" * 3_000
KEYS = "11" * 32
ONCE = Schedule(attempts_max=1)
SECRETS = {"Authorization": "Bearer s3cret-1", "Cookie": "session=s3cret-2", "X-Api-Key": "s3cret-3"}


@pytest.fixture
def journal(tmp_path):
    """A journal."""
    with Journal(tmp_path / "journal.db") as journal:
        yield journal


@pytest.fixture(params=CLIENTS)
def client(request):
    """Each client in turn, by name."""
    return request.param


def lost(shop, network, client, journal, *, headers=None, settings=None, name=None, content=CONTENT):
    """One call whose only answer is lost, directly to a shop that another call can reach."""
    with network.faulty(shop.port, [LoseResponse()]) as proxy:
        url = f"http://127.0.0.1:{proxy.port}/orders"
        options = {"journal": journal, "schedule": ONCE, **(settings or {})}
        post = Post(url, content, headers=headers or {}, settings=options)
        with intent(name or str(uuid.uuid4())):
            return got(CLIENTS[client], post)


def again(entry, shop):
    """The same entry, as the shop is reached without a proxy; the port is the only thing that a test has to change."""
    return entry.asked.url.replace(entry.asked.url.split("/")[2], f"127.0.0.1:{shop.port}")


def test_settled_at_once(client, shop, journal):
    """A call that was answered leaves nothing that is unsettled."""
    answer = got(CLIENTS[client], Post(f"http://127.0.0.1:{shop.port}/orders", settings={"journal": journal}))
    assert answer.status == 201
    assert journal.unsettled() == []


def test_lost_and_resumed(client, shop, network, journal):
    """A call without an answer stands in the journal, and is settled under its own key."""
    with network.faulty(shop.port, [LoseResponse()]) as proxy:
        settings = {"journal": journal, "schedule": ONCE}
        post = Post(f"http://127.0.0.1:{proxy.port}/orders", CONTENT, settings=settings)
        assert got(CLIENTS[client], post).ended.certainty is Certainty.UNKNOWN
        (entry,) = journal.unsettled()
        assert entry.asked.content == CONTENT
        (resumed,) = RESUME[client](post, journal, headers={"Connection": "close"})
    assert resumed.failure is None
    assert resumed.certainty is Certainty.SETTLED
    assert journal.unsettled() == []
    ((key, _),) = shop.effects()
    assert shop.keys() == [key, key] == [entry.key, entry.key]


def test_what_is_known_not_to_be_done_is_dropped(client, shop, network, journal):
    """Whoever asked has been told; nothing is left to be found out."""
    with network.faulty(shop.port, []) as proxy:
        port = proxy.port
    post = Post(f"http://127.0.0.1:{port}/orders", settings={"journal": journal, "schedule": ONCE})
    assert got(CLIENTS[client], post).ended.certainty is Certainty.NOT_DONE
    assert journal.unsettled() == []


def test_a_redirect_is_the_same_entry(client, shop, journal):
    """A call that was moved within its origin is settled where it went."""
    post = Post(f"http://127.0.0.1:{shop.port}/moved", CONTENT, settings={"journal": journal})
    assert got(CLIENTS[client], post).status == 201
    assert journal.unsettled() == []
    assert len(set(shop.keys())) == 1


def test_an_intent_is_repeated_under_its_key(shop, network, journal):
    """In a loop of the caller's: the same name, the same content, the same key; after the answer too."""
    with network.faulty(shop.port, [LoseResponse()]) as proxy:
        post = Post(f"http://127.0.0.1:{proxy.port}/orders", CONTENT, settings={"journal": journal, "schedule": ONCE})
        with intent("order-1"):
            statuses = [got(CLIENTS["httpx2"], post).status for _ in range(3)]
    assert statuses == [0, 201, 201]
    assert len(shop.effects()) == 1
    assert len(set(shop.keys())) == 1


def test_an_intent_that_changed_before_it_was_settled(shop, network, journal):
    """Nothing is sent: first somebody has to find out how the earlier call ended (R87)."""
    with network.faulty(shop.port, [LoseResponse()]) as proxy:
        url, settings = f"http://127.0.0.1:{proxy.port}/orders", {"journal": journal, "schedule": ONCE}
        with intent("order-1"):
            got(CLIENTS["httpx2"], Post(url, CONTENT, settings=settings))
            changed = got(CLIENTS["httpx2"], Post(url, b"other", settings=settings))
            assert isinstance(changed.failure, IntentChanged)
            assert len(shop.keys()) == 1
            RESUME["httpx2"](Post(url, settings=settings), journal, headers={"Connection": "close"})
            assert got(CLIENTS["httpx2"], Post(url, b"other", settings=settings)).status == 201
    (first, _), (second, _) = shop.effects()
    assert first != second  # a new key for what was changed after a definitive answer (R88)


def test_the_callers_key_finds_its_entry(shop, network, journal):
    """A call that is repeated under the caller's own key is the same entry."""
    key = f"mine-{uuid.uuid4()}"
    lost(shop, network, "httpx2", journal, headers={"Idempotency-Key": key})
    lost(shop, network, "httpx2", journal, headers={"Idempotency-Key": key}, content=b"other")
    assert [entry.key for entry in journal.unsettled()] == [key]


def test_too_old_to_be_sent_again(shop, network, journal):
    """Past the lifetime nothing is sent, and it is listed until somebody strikes it out (R94)."""
    lost(shop, network, "httpx2", journal, name="order-1")
    (entry,) = journal.unsettled()
    old = Entry(entry.id, "order-1", entry.key, entry.header, entry.asked, entry.digest, 1_000.0, 60.0)
    rewrite(journal, old)
    (resumed,) = RESUME["httpx2"](Post(entry.asked.url), journal)
    assert isinstance(resumed.failure, OutcomeUnknown)
    assert (resumed.certainty, len(shop.keys())) == (Certainty.UNKNOWN, 1)
    assert journal.unsettled() == [old]
    journal.forget(old)
    assert journal.unsettled() == []


def rewrite(journal, entry):
    """What an entry would be if time had passed."""
    with journal._transaction() as sql:
        sql.execute("UPDATE entries SET content = ? WHERE id = ?", (written(entry), entry.id))


@pytest.mark.parametrize("client", ["httpx2", "httpx2-async", "requests", "aiohttp", "urllib3"])
def test_too_old_and_the_server_is_asked(shop, network, journal, client):
    """The server may still say what became of it: then it is settled, and nothing was sent."""
    lost(shop, network, client, journal)
    (entry,) = journal.unsettled()
    asked = Asked(entry.asked.method, again(entry, shop), entry.asked.headers, entry.asked.content)
    rewrite(journal, Entry(entry.id, entry.name, entry.key, entry.header, asked, entry.digest, 1_000.0, 60.0))
    (resumed,) = RESUME[client](Post(""), journal, status_path="/idempotency/requests")
    assert (resumed.certainty, resumed.state) == (Certainty.SETTLED, "completed")
    assert journal.unsettled() == []
    assert [path for _, path in shop.lines("seen")] == ["/orders", "/idempotency/requests"]


def test_credentials_are_not_kept_in_the_clear(shop, network, journal, tmp_path):
    """Without encryption none is in the file; resume() is given them."""
    lost(shop, network, "httpx2", journal, headers=SECRETS)
    assert b"s3cret" not in (tmp_path / "journal.db").read_bytes()
    (entry,) = journal.unsettled()
    assert not {name.lower() for name, _ in entry.asked.headers} & {name.lower() for name in SECRETS}
    shop.reset()
    rewrite(journal, Entry(entry.id, entry.name, entry.key, entry.header,
                           Asked("POST", again(entry, shop), entry.asked.headers, CONTENT), entry.digest,
                           entry.created_at_s, entry.lifetime_s))  # fmt: skip
    (resumed,) = RESUME["httpx2"](Post(""), journal, headers={"Authorization": "Bearer new"})
    assert resumed.certainty is Certainty.SETTLED
    assert shop.lines("credential") == [["authorization=Bearer", "new"]]


def test_an_encrypted_journal_keeps_credentials(shop, network, tmp_path):
    """With keys all of it is encrypted: names, addresses and keys too; without them it cannot be read."""
    path = tmp_path / "sealed.db"
    with Journal(path, encryption_keys=KEYS) as sealed:
        lost(shop, network, "httpx2", sealed, headers=SECRETS, name="order-for-Ada")
        (entry,) = sealed.unsettled()
        assert dict(SECRETS).items() <= {name.title(): line for name, line in entry.asked.headers}.items()
        stored = path.read_bytes()
        assert not [word for word in (b"s3cret", b"Ada", b"/orders", entry.key.encode(), CONTENT) if word in stored]
    with Journal(path) as plain, pytest.raises(Unreadable, match="encryption_keys"):
        plain.unsettled()
    with Journal(path, encryption_keys=f"{'22' * 32} {KEYS}") as rotated:
        assert rotated.unsettled() == [entry]


def test_the_file_is_nobody_elses(journal, tmp_path):
    """Requests are for the eyes of their process's user."""
    assert (tmp_path / "journal.db").stat().st_mode & 0o077 == 0


def test_a_file_of_somebody_else(tmp_path):
    """What is no journal is left as it is."""
    for name, statement in {"other": "CREATE TABLE t (x)", "newer": "PRAGMA user_version = 9"}.items():
        path = tmp_path / name
        if name == "newer":
            Journal(path).close()
        with sqlite3.connect(path) as sql:
            sql.execute(statement)
        sql.close()
        before = path.read_bytes()
        with pytest.raises(StoreUnusable, match=r"not a client.s journal|newer release"):
            Journal(path)
        assert path.read_bytes() == before


def test_a_folder_that_is_not_there(tmp_path):
    """It is said so."""
    with pytest.raises(StoreUnusable, match="No such file"):
        Journal(tmp_path / "nowhere" / "journal.db")


def test_a_place_that_was_taken_meanwhile(tmp_path):
    """Somebody else began the same intent while this call was told where to go: both have their entry."""
    wish = Wish("order-1", '"k-1"', own=False, header="Idempotency-Key", lifetime_s=60.0)
    asked = Asked("POST", "http://127.0.0.1:1/x", (), b"")
    with Journal(tmp_path / "j.db") as journal:
        entry, _ = journal.begin(asked, wish)
        journal.drop(entry)
        other, _ = journal.begin(asked, wish)
        journal.again(entry, asked, wish)
        assert {each.id for each in journal.unsettled()} == {entry.id, other.id}


def test_two_journals_on_one_file(tmp_path):
    """What one has in flight the other leaves alone; what one left the other takes, and only one of them."""
    wish = Wish("", '"k-1"', own=False, header="Idempotency-Key", lifetime_s=60.0)
    asked = Asked("POST", "http://127.0.0.1:1/x", (), b"")
    with Journal(tmp_path / "j.db") as one, Journal(tmp_path / "j.db") as other:
        entry, doubtful = one.begin(asked, wish)
        assert not doubtful
        assert (one.take(entry), other.take(entry)) == (False, False)
        one.leave(entry)
        assert [other.take(entry), one.take(entry), other.take(entry)] == [True, False, False]
        other.settle(entry)
        assert not one.take(entry)


def test_a_fork_has_a_journal_of_its_own(tmp_path):
    """What the parent has in flight is the parent's, and the child writes what it sends."""
    wish = Wish("", '"k-1"', own=False, header="Idempotency-Key", lifetime_s=60.0)
    asked = Asked("POST", "http://127.0.0.1:1/x", (), b"")
    with Journal(tmp_path / "j.db") as journal:
        entry, _ = journal.begin(asked, wish)
        child = os.fork()
        if child == 0:
            try:
                journal.begin(asked, wish)
                os._exit(0 if not journal.take(entry) else 2)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        mine, childs = journal.unsettled()
        assert mine.id == entry.id
        assert not journal.take(mine)
        assert journal.take(childs)  # the child is dead


def test_a_cancelled_call_can_be_resumed(shop, journal):
    """Whoever gave up waiting leaves the operation in the journal, for others to settle."""
    gate = shop.place / "closed"
    gate.touch()
    url = f"http://127.0.0.1:{shop.port}/orders"

    async def give_up():
        transport = AsyncIdempotencyTransport("retrysafe", journal=journal, schedule=QUICK)
        async with httpx2.AsyncClient(transport=transport) as client:
            call = asyncio.create_task(client.post(url, content=CONTENT, headers={"X-Account-Id": "7"}))
            await asyncio.to_thread(until, shop.effects)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    asyncio.run(give_up())
    gate.unlink()
    (resumed,) = RESUME["httpx2-async"](Post(url), journal)
    assert resumed.certainty is Certainty.SETTLED
    assert len(shop.effects()) == 1


def test_threads_share_a_journal(shop, journal):
    """Many calls at once, each with an entry of its own."""
    post = Post(f"http://127.0.0.1:{shop.port}/orders", settings={"journal": journal})
    threads = [threading.Thread(target=got, args=(CLIENTS["httpx2"], post)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({key for key, _ in shop.effects()}) == 4
    assert journal.unsettled() == []


def test_a_client_without_a_transport(shop, network, journal):
    """It is said that nothing judges the answer."""
    lost(shop, network, "httpx2", journal)
    (entry,) = journal.unsettled()
    asked = Asked("POST", again(entry, shop), entry.asked.headers, CONTENT)
    rewrite(journal, Entry(entry.id, "", entry.key, entry.header, asked, entry.digest, entry.created_at_s, 60.0 * 60))
    with httpx2.Client() as plain, pytest.raises(CallerError, match="transport of retrysafe"):
        resume(journal, plain)
    assert len(journal.unsettled()) == 1


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ASKED = st.builds(Asked, TEXTS, TEXTS, st.lists(st.tuples(TEXTS, TEXTS), max_size=4).map(tuple), st.binary())


@given(
    st.builds(
        Entry, st.just(b"i" * 16), TEXTS, TEXTS, TEXTS, ASKED, st.binary(min_size=32, max_size=32),
        st.floats(0, 1e10), st.floats(0, 1e10),
    )
)  # fmt: skip
def test_an_entry_comes_back(entry):
    """What is read is what was written; and what is cut or newer is not read."""
    document = written(entry)
    assert read(entry.id, document) == entry
    for damaged in (document[:-1] + b"", b"\x09" + document[1:], b""):
        if damaged != document:
            with pytest.raises(Unreadable):
                read(entry.id, damaged)
