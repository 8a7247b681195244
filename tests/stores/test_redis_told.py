"""The time that a process was told by its servers, slot by slot, and gives back to them."""

from __future__ import annotations

import secrets
import threading

from redis.crc import key_slot

from retrysafe.stores.redis_plan import Layout, Told, _slot
from retrysafe.stores.redis_scripts import Scripts


def learn(told, record_id, times_ms):
    for now_ms in times_ms:
        told.learn(record_id, now_ms)


def test_only_the_latest_is_kept():
    """Whatever comes later, from whichever thread, the latest stays."""
    told, record_id = Told(), secrets.token_bytes(32)
    assert told.of(record_id) == 0
    threads = [
        threading.Thread(target=learn, args=(told, record_id, range(latest_ms, 0, -1)))
        for latest_ms in (500, 2_000, 1_000)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told.of(record_id) == 2_000


def test_slots_know_nothing_of_each_other():
    """Records of another slot may be on another server: its clock, ahead or not, ends no lease here."""
    told, here, elsewhere = Told(), bytes.fromhex("00" * 32), bytes.fromhex("ff" * 32)
    told.learn(elsewhere, 1_000)
    assert told.of(here) == 0
    told.learn(here, 10)
    assert (told.of(here), told.of(elsewhere)) == (10, 1_000)
    assert told.of(here[:4] + bytes(reversed(elsewhere[4:]))) == 10  # same hash tag, same server


def test_slot_is_a_clusters():
    """As redis-py, and a cluster, find it for both keys of a record."""
    layout = Layout("shop", Scripts())
    for _ in range(200):
        record_id = secrets.token_bytes(32)
        assert {key_slot(key) for key in layout.keys(record_id)} == {_slot(record_id)}
