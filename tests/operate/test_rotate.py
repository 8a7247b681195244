"""Stored responses change their key beside live traffic, and nothing unencrypted stays."""

from __future__ import annotations

import asyncio
import json
import secrets

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrysafe.encryption import key_ring
from retrysafe.model import Claim, Response
from retrysafe.operate.rotate import Rotated, rotate
from retrysafe.protocol.snapshot import Snapshot, seal, unseal
from retrysafe.protocol.transitions import (
    ClaimIfAbsent,
    CompleteIfHeld,
    DiscardIfHeld,
    KeepJournalIfHeld,
    ListResponses,
    Read,
    ReleaseIfHeld,
    ReplaceResponseIfSame,
)
from retrysafe.stores.memory import MemoryStore
from tests.doors.handlers import Shop
from tests.drive.harness import TamperedStore
from tests.operate.shops import CANARY, NEW, OLD, can_be_seen, command, requests, store_of, url_of

RINGS = {"plain": None, "old": key_ring([OLD]), "new": key_ring([NEW]), "lost": key_ring([secrets.token_bytes(32)])}
BOTH = key_ring([NEW, OLD])


def _completed(store, secret, kind):
    """A completed record whose response is kept in one of the ways that there are; its id."""
    record_id, token = secrets.token_bytes(32), secrets.token_bytes(16)
    store.perform(ClaimIfAbsent(record_id, token, b"f", 60_000, 60_000))
    snapshot = Snapshot(Response(201, (), record_id), whole=True, size=32, digest=b"", origin=b"")
    stored = seal(snapshot, record_id, secret, RINGS[kind])
    assert store.perform(CompleteIfHeld(Claim(record_id, token, 1), stored, 600_000, 600_000))
    return record_id


def _record(store, record_id):
    found = store.perform(Read(record_id))
    assert found is not None
    return found.record


def _content(store, secret, record_id, ring):
    return unseal(_record(store, record_id).response or b"", record_id, secret, ring).response.body


@given(st.lists(st.sampled_from(list(RINGS)), max_size=40))
@settings(max_examples=30)
def test_every_response_gets_the_first_key(kinds):
    """However each is kept; those whose key nobody has stay as they are. Done again, nothing is left to do."""
    store = MemoryStore()
    secret = store.open()
    made = [(kind, _completed(store, secret, kind)) for kind in kinds]
    lost = {record_id: _record(store, record_id) for kind, record_id in made if kind == "lost"}
    stale = kinds.count("plain") + kinds.count("old")
    expected = Rotated(stale, kinds.count("new"), 0, len(lost))
    assert asyncio.run(rotate(store, secret, BOTH, lambda _: None)) == expected
    again = asyncio.run(rotate(store, secret, BOTH, lambda _: None))
    assert again == Rotated(0, len(kinds) - len(lost), 0, len(lost))
    for kind, record_id in made:
        if kind == "lost":
            assert _record(store, record_id) == lost[record_id]
        else:
            assert _content(store, secret, record_id, RINGS["new"]) == record_id


def test_more_than_a_page(tmp_path):
    """Hundreds, in batches, and it is told how far it is."""
    store = store_of(tmp_path)
    secret = store.open()
    made = [_completed(store, secret, "plain") for _ in range(450)]
    told: list[Rotated] = []
    assert asyncio.run(rotate(store, secret, BOTH, told.append)) == Rotated(450, 0, 0, 0)
    assert [done.encrypted for done in told] == sorted(done.encrypted for done in told)
    assert len(told) > 20
    assert all(_content(store, secret, record_id, RINGS["new"]) == record_id for record_id in made)
    store.close()


def test_what_is_not_completed_is_counted():
    """Requests and journals that the first key does not open keep their key on the ring, until they are gone."""
    store = MemoryStore()
    secret = store.open()
    claims = [Claim(secrets.token_bytes(32), secrets.token_bytes(16), 1) for _ in range(40)]
    for number, claim in enumerate(claims):
        request = key_ring([OLD if number < 20 else NEW]).encrypt(b"request", claim.record_id)
        store.perform(ClaimIfAbsent(claim.record_id, claim.token, b"f", 60_000, 60_000, request=request))
    for claim in claims[30:35]:
        assert store.perform(KeepJournalIfHeld(claim, key_ring([OLD]).encrypt(b"journal", claim.record_id)))
    for claim in claims[5:10]:
        assert store.perform(ReleaseIfHeld(claim, 60_000))
    assert asyncio.run(rotate(store, secret, BOTH, lambda _: None)).waiting == 25
    for claim in (*claims[10:20], *claims[30:35]):
        assert store.perform(DiscardIfHeld(claim))
    assert asyncio.run(rotate(store, secret, BOTH, lambda _: None)).waiting == 10


def test_waiting_records_are_findings(tmp_path):
    """The command says that the old key is still needed, by its exit code too."""
    store = store_of(tmp_path)
    store.open()
    claim = Claim(secrets.token_bytes(32), secrets.token_bytes(16), 1)
    request = key_ring([OLD]).encrypt(b"request", claim.record_id)
    store.perform(ClaimIfAbsent(claim.record_id, claim.token, b"f", 60_000, 60_000, request=request))
    keys = {"RETRYSAFE_ENCRYPTION_KEYS": f"{NEW} {OLD}"}
    result = command("keys", "rotate", "--store", url_of(tmp_path), **keys)
    assert (result.exit_code, result.output) == (1, "encrypted 0, current 0, overtaken 0, unreadable 0, waiting 1\n")
    assert store.perform(CompleteIfHeld(claim, key_ring([NEW]).encrypt(b"response", claim.record_id), 60_000, 60_000))
    result = command("keys", "rotate", "--store", url_of(tmp_path), **keys)
    assert (result.exit_code, result.output) == (0, "encrypted 0, current 1, overtaken 0, unreadable 0, waiting 0\n")
    store.close()


@pytest.mark.parametrize("meanwhile", ["another rotation", "gone"])
def test_whoever_was_quicker_wins(meanwhile):
    """Between the look and the exchange the record changes: what stands then is left as it is."""
    inner = MemoryStore()
    secret = inner.open()
    record_id = _completed(inner, secret, "old")
    by_another = seal(
        unseal(_record(inner, record_id).response or b"", record_id, secret, BOTH), record_id, secret, BOTH
    )

    def step_in(transition):
        if isinstance(transition, ReplaceResponseIfSame) and meanwhile == "gone":
            del inner._records[record_id]
        elif isinstance(transition, ReplaceResponseIfSame):
            seen = _record(inner, record_id)
            inner.perform(ReplaceResponseIfSame(record_id, seen.token, seen.response or b"", by_another))

    store = TamperedStore(inner, before=step_in)
    assert asyncio.run(rotate(store, secret, BOTH, lambda _: None)) == Rotated(0, 0, 1, 0)
    if meanwhile == "gone":
        assert inner.perform(Read(record_id)) is None
    else:
        assert _record(inner, record_id).response == by_another


def test_beside_live_traffic(tmp_path):
    """Two rotations at once, while records are completed: every answer stays readable, and in the end has the key."""
    store = store_of(tmp_path)
    secret = store.open()
    made = [_completed(store, secret, "old") for _ in range(60)]

    async def traffic():
        made.extend([await asyncio.to_thread(_completed, store, secret, "new") for _ in range(40)])

    async def main():
        rotations = (rotate(store, secret, BOTH, lambda _: None) for _ in range(2))
        first, second, _ = await asyncio.gather(*rotations, traffic())
        return first.encrypted + second.encrypted

    assert asyncio.run(main()) == 60
    page = store.perform(ListResponses())
    assert len(page.responses) == 100
    assert all(BOTH.is_current(stored.head) for stored in page.responses)
    assert all(_content(store, secret, record_id, RINGS["new"]) == record_id for record_id in made)
    store.close()


# --- the whole way, from the door to the file and back ---------------------------------------------


def test_nothing_unencrypted_in_the_files(tmp_path):
    """With keys, neither content nor fields of an answer are in any file, while it is open and after."""
    shop = Shop(headers=[(b"x-canary", CANARY)])
    requests(tmp_path, ["k-1"], encryption_keys=[OLD], shop=shop)
    assert not can_be_seen(tmp_path)
    assert not can_be_seen(tmp_path, b"order 1")
    (replay,) = requests(tmp_path, ["k-1"], encryption_keys=[OLD], shop=shop)
    assert (replay.body, replay.values("x-canary"), replay.replayed) == (b"order 1", [CANARY.decode()], True)
    assert shop.effects == 1


def test_rotation_leaves_nothing_behind(tmp_path):
    """What was stored before there were keys is encrypted, and its plain bytes are gone from the file too."""
    keys = [f"k-{number}" for number in range(30)]
    requests(tmp_path, keys)
    assert can_be_seen(tmp_path)
    result = command("keys", "rotate", "--store", url_of(tmp_path), RETRYSAFE_ENCRYPTION_KEYS=NEW)
    assert (result.exit_code, result.output) == (0, "encrypted 30, current 0, overtaken 0, unreadable 0, waiting 0\n")
    assert not can_be_seen(tmp_path)
    assert not can_be_seen(tmp_path, b"order 1")
    replays = requests(tmp_path, keys, encryption_keys=[NEW])
    assert [answer.body for answer in replays] == [b"order %d" % number for number in range(1, 31)]
    assert all(answer.replayed for answer in replays)


def test_a_key_that_is_gone(tmp_path):
    """Its answers are not replayed and nothing runs again; the rotation finds them and says so with exit code 1."""
    shop = Shop()
    requests(tmp_path, ["k-1"], encryption_keys=[OLD], shop=shop)
    for keys in ([NEW], None):
        (refused,) = requests(tmp_path, ["k-1"], encryption_keys=keys, shop=shop)
        assert (refused.status, refused.code) == (409, "replay-unavailable")
    (tmp_path / "keys").write_text(NEW + "\n")
    result = command(
        "keys", "rotate", "--json", "--store", url_of(tmp_path), "--encryption-keys-file", str(tmp_path / "keys")
    )
    assert result.exit_code == 1
    assert json.loads(result.output) == {"encrypted": 0, "current": 0, "overtaken": 0, "unreadable": 1, "waiting": 0}
    (replay,) = requests(tmp_path, ["k-1"], encryption_keys=[NEW, OLD], shop=shop)
    assert (replay.body, replay.replayed, shop.effects) == (b"order 1", True, 1)


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        ({}, "there are no encryption_keys; set RETRYSAFE_ENCRYPTION_KEYS"),
        ({"RETRYSAFE_ENCRYPTION_KEYS": ""}, "RETRYSAFE_ENCRYPTION_KEYS: encryption_keys names no key"),
        ({"RETRYSAFE_ENCRYPTION_KEYS": f"{OLD} swordfish"}, "RETRYSAFE_ENCRYPTION_KEYS: encryption_keys: key number 2"),
        ({"RETRYSAFE_ENCRYPTION_KEYS_FILE": "nowhere"}, "encryption_keys_file cannot be read"),
    ],
)
def test_keys_that_cannot_be_used(variables, fault, tmp_path):
    """A configuration error, which shows no key; the store is not touched."""
    result = command("keys", "rotate", "--store", url_of(tmp_path), **variables)
    assert result.exit_code == 2
    assert fault in result.stderr
    assert OLD not in result.stderr
    assert "swordfish" not in result.stderr
    assert not list(tmp_path.iterdir())
