"""The time that a process was told by its servers, and gives back to them: each server's own."""

from __future__ import annotations

import secrets

from redis.crc import key_slot

from retrysafe.stores.redis_plan import SLOTS, Layout, ToldBySlot, _slot
from retrysafe.stores.redis_scripts import Scripts


def test_slots_of_a_cluster_know_nothing_of_each_other():
    """Records of another slot may be on another server: its clock, ahead or not, ends no lease here."""
    told, here, elsewhere = ToldBySlot(SLOTS), bytes(32), bytes.fromhex("ff" * 32)
    told.of(elsewhere).hear([1_000])
    assert told.of(here).now_ms == 0
    told.of(here).hear([10])
    assert (told.of(here).now_ms, told.of(elsewhere).now_ms) == (10, 1_000)
    assert told.of(here[:4] + elsewhere[4:]).now_ms == 10  # the same hash tag, so the same server


def test_one_server_has_one_clock():
    """What was told about any record is known for all."""
    told = ToldBySlot()
    told.of(bytes(32)).hear([10])
    assert told.of(secrets.token_bytes(32)).now_ms == 10


def test_slot_is_a_clusters():
    """As redis-py finds it, for both keys of a record."""
    layout = Layout("shop", Scripts())
    for _ in range(200):
        record_id = secrets.token_bytes(32)
        assert {key_slot(key) for key in layout.keys(record_id)} == {_slot(record_id)}
