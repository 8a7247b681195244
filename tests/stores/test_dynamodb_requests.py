"""What the DynamoDB store asks of the service, and what it makes of answers that are late, lost or refusals."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import boto3
import pytest

from retrysafe.errors import StoreError, StoreUnavailable, StoreUnusable
from retrysafe.model import Claim, State
from retrysafe.protocol.states import GUARDS, TABLE, Event, Guard
from retrysafe.protocol.transitions import (
    ANSWER_DAYS_KEPT,
    DAY_MS,
    HISTORY_ENTRY_BYTES_MAX,
    STORED_HEAD_BYTES,
    AddHistory,
    AnswerCount,
    ClaimIfAbsent,
    CompleteIfHeld,
    CountAnswers,
    DiscardIfHeld,
    ForgetIfOver,
    KeepJournalIfHeld,
    ListResponses,
    Purge,
    Purged,
    Read,
    ReadDetails,
    ReleaseIfHeld,
    RenewIfHeld,
    ReplaceResponseIfSame,
    TakeStats,
)
from retrysafe.stores.clock import host_clock
from retrysafe.stores.dynamodb import DynamoStore
from retrysafe.stores.dynamodb_items import INLINE_BYTES_MAX, META, PART_BYTES
from retrysafe.stores.dynamodb_table import SCHEMA_VERSION, SENT_MAX
from retrysafe.testing import ManualClock
from retrysafe.testing.subject import FINGERPRINT, KEEP_MS, LEASE_MS, LIFETIME_MS, token, transition_of
from tests.stores.dynamodb_service import running

DAY_S = 86_400
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def service():
    with running() as service:
        yield service


@pytest.fixture(scope="module")
def session():
    return boto3.Session(aws_access_key_id="id", aws_secret_access_key="secret", region_name="eu-central-1")


class Shelf:
    """One table, and the means to look behind the store's back."""

    def __init__(self, service, session):
        self.service = service
        self.name = f"shelf-{next(NUMBERS)}"
        self.session = session
        self.client = session.client("dynamodb", endpoint_url=service.url)
        self.clock = ManualClock()
        self.stores = []
        self.store = self.another()
        self.record_id = secrets.token_bytes(32)

    def another(self, **settings):
        """A store on the table, open."""
        store = self.closed(**settings)
        store.open()
        return store

    def closed(self, **settings):
        """A store on the table."""
        settings = {"clock": self.clock, "endpoint_url": self.service.url} | settings
        self.stores.append(DynamoStore(self.name, session=self.session, **settings))
        return self.stores[-1]

    def claim(self):
        """The record is claimed."""
        found = self.store.perform(ClaimIfAbsent(self.record_id, token(), FINGERPRINT, LEASE_MS, KEEP_MS))
        return Claim(self.record_id, found.record.token, 1)

    def asked(self, action):
        """The operations that an action asks of the service, and its answer."""
        before = len(self.service.seen(self.name))
        answer = action()
        return self.service.seen(self.name)[before:], answer

    def items(self):
        """Every item but the store's own."""
        pages = self.client.get_paginator("scan").paginate(TableName=self.name)
        return [item for page in pages for item in page["Items"] if item["record_id"]["B"] != META]

    def state(self):
        """Of the record."""
        found = self.store.perform(Read(self.record_id))
        return found and found.record.state


@pytest.fixture
def shelf(service, session):
    shelf = Shelf(service, session)
    yield shelf
    for store in shelf.stores:
        store.close()


# --- how many requests ----------------------------------------------------------------------------


def test_a_claim_is_one_request(shelf):
    """A claim, and a second one that finds the first, are one request each."""
    operations, _ = shelf.asked(shelf.claim)
    assert operations == ["PutItem"]
    operations, _ = shelf.asked(shelf.claim)
    assert operations == ["PutItem"]


@pytest.mark.parametrize(("state", "event"), [(state, event) for state, event in TABLE if state is State.IN_PROGRESS])
def test_a_transition_is_one_request(shelf, state, event):
    """Every move of a record in progress is one conditional write."""
    claim = shelf.claim()
    shelf.clock.advance(LEASE_MS if GUARDS[event] is Guard.LAPSED else 0)
    operations, happened = shelf.asked(lambda: shelf.store.perform(transition_of(event, claim, None)))
    assert happened
    assert operations == ["DeleteItem" if TABLE[state, event] is None else "UpdateItem"]


# --- replies that are lost, and requests that are sent again ------------------------------------------


def test_a_claim_that_is_sent_again_holds(shelf):
    """The reply to a claim was lost: the driver sends it again, and it finds itself."""
    shelf.service.trouble("lost", shelf.name, times=1)
    claiming = ClaimIfAbsent(shelf.record_id, token(), FINGERPRINT, LEASE_MS, KEEP_MS)
    operations, found = shelf.asked(lambda: shelf.store.perform(claiming))
    assert operations == ["PutItem", "PutItem"]
    assert (found.record.token, found.record.attempt) == (claiming.token, 1)


@pytest.mark.parametrize("event", [Event.COMPLETE, Event.TAKE_OVER, Event.RENEW])
def test_an_update_that_is_sent_again_recognises_itself(shelf, event):
    """The reply to an update was lost: it took effect, once, and says so."""
    claim = shelf.claim()
    shelf.clock.advance(LEASE_MS)
    shelf.service.trouble("lost", shelf.name, times=1)
    operations, happened = shelf.asked(lambda: shelf.store.perform(transition_of(event, claim, None)))
    assert operations == ["UpdateItem", "UpdateItem"]
    assert happened
    assert shelf.store.perform(Read(shelf.record_id)).record.attempt == (2 if event is Event.TAKE_OVER else 1)
    assert shelf.state() is TABLE[State.IN_PROGRESS, event]


def test_a_delete_is_sent_once(shelf):
    """A delete whose reply was lost leaves nothing to recognise itself by: the caller is told of the doubt."""
    claim = shelf.claim()
    shelf.service.trouble("lost", shelf.name, times=1)

    def discard():
        with pytest.raises(StoreUnavailable, match="may or may not have been applied"):
            shelf.store.perform(transition_of(Event.DISCARD, claim, None))

    operations, _ = shelf.asked(discard)
    assert operations == ["DeleteItem"]
    assert shelf.state() is None


def test_every_reply_is_lost(shelf):
    """When no reply comes, the caller is told of the doubt after a few attempts; the transition took effect once."""
    claim = shelf.claim()
    shelf.service.trouble("lost", shelf.name)

    def complete():
        with pytest.raises(StoreUnavailable, match="may or may not have been applied"):
            shelf.store.perform(transition_of(Event.COMPLETE, claim, None))

    operations, _ = shelf.asked(complete)
    assert operations == ["UpdateItem"] * SENT_MAX
    shelf.service.trouble("lost", shelf.name, times=0)
    assert shelf.state() is State.COMPLETED


def test_what_is_throttled_for_a_moment_is_sent_again(shelf):
    """A request that is throttled once is answered all the same."""
    shelf.service.trouble("throttled", shelf.name, times=1)
    operations, found = shelf.asked(lambda: shelf.store.perform(Read(shelf.record_id)))
    assert operations == ["GetItem", "GetItem"]
    assert found is None


@pytest.mark.parametrize(
    ("kind", "error", "advice"),
    [
        ("throttled", StoreUnavailable, "raise its capacity"),
        ("conflict", StoreUnavailable, "a transaction of somebody else"),
        ("expired token", StoreUnavailable, "renew them"),
        ("failed", StoreUnavailable, "may or may not have applied it"),
        ("forbidden", StoreUnusable, "GetItem, PutItem, UpdateItem, DeleteItem and Scan"),
        ("unknown client", StoreUnusable, "credentials are not valid"),
    ],
)
def test_what_the_service_refuses(shelf, kind, error, advice):
    """Each refusal is told as what it is, with what to do about it; nothing was done."""
    claim = shelf.claim()
    shelf.service.trouble(kind, shelf.name)
    with pytest.raises(error, match=advice) as refused:
        shelf.store.perform(transition_of(Event.DISCARD, claim, None))
    assert shelf.name in str(refused.value)
    assert type(refused.value) is error
    shelf.service.trouble(kind, shelf.name, times=0)
    assert shelf.state() is State.IN_PROGRESS


def test_a_service_that_is_not_there(session):
    """Where nothing listens, the store is unavailable."""
    store = DynamoStore("keys", session=session, endpoint_url="http://127.0.0.1:9")
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        store.open()
    store.close()


def test_a_service_that_shows_no_item_when_it_refuses(shelf):
    """Where a refusal does not say what was there, the store looks: a claim, a repeat and an old date are the same."""
    behind = shelf.another(clock=ManualClock(shelf.clock() - 3_600_000))
    shelf.service.trouble("mute", shelf.name)
    claim = shelf.claim()
    operations, found = shelf.asked(shelf.claim)
    assert operations == ["PutItem", "GetItem"]
    assert found == claim
    assert not shelf.store.perform(transition_of(Event.RENEW, Claim(shelf.record_id, token(), 1), None))
    assert not shelf.store.perform(transition_of(Event.RENEW, Claim(bytes(32), token(), 1), None))
    assert behind.perform(transition_of(Event.COMPLETE, claim, None))
    assert shelf.state() is State.COMPLETED


def test_values_that_the_service_does_not_take(shelf):
    """What the service says of values may repeat them, so it is not passed on."""
    with pytest.raises(StoreError, match="does not take the values") as refused:
        shelf.store.perform(ClaimIfAbsent(bytes(3_000), token(), FINGERPRINT, LEASE_MS, KEEP_MS))
    assert type(refused.value) is StoreError


@pytest.fixture
def no_settings(monkeypatch):
    """Nothing that boto3 would take settings from, and no network to ask for them."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def test_credentials_that_are_missing(no_settings, service):
    """Without credentials the store says who is to give some."""
    store = DynamoStore("keys", region="eu-central-1", endpoint_url=service.url)
    with pytest.raises(StoreUnusable, match="no credentials"):
        store.open()


def test_a_region_that_is_missing(no_settings):
    """Without a region the store says where to write it."""
    with pytest.raises(StoreUnusable, match=r"dynamodb://keys\?region="):
        DynamoStore("keys").open()


# --- the table ------------------------------------------------------------------------------------


def test_the_table_is_made(shelf):
    """A table that is not there is made, paid by the request, with a date by which the service deletes."""
    made = shelf.client.describe_table(TableName=shelf.name)["Table"]
    assert made["KeySchema"] == [{"AttributeName": "record_id", "KeyType": "HASH"}]
    assert made["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    lives = shelf.client.describe_time_to_live(TableName=shelf.name)["TimeToLiveDescription"]
    assert lives == {"TimeToLiveStatus": "ENABLED", "AttributeName": "forget_at_s"}


def test_the_table_is_not_made_where_it_may_not_be(service, session):
    """With create=False a table that is not there is refused, and how it is made is said."""
    store = DynamoStore("absent", session=session, endpoint_url=service.url, create=False)
    with pytest.raises(StoreUnusable, match="binary partition key record_id"):
        store.open()
    store.close()
    assert "CreateTable" not in service.seen("absent")


def test_a_table_that_is_there_is_used(shelf):
    """Nothing is made anew, and nobody's leave to make tables is needed."""
    operations, _ = shelf.asked(lambda: shelf.another(create=False))
    assert operations == ["GetItem"]


def test_many_that_open_at_once_make_one_table(service, session):
    """Of stores that open together where there is no table, all come to one, and to one secret."""
    stores = [DynamoStore("together", session=session, endpoint_url=service.url) for _ in range(6)]
    with ThreadPoolExecutor(len(stores)) as pool:
        secrets_of_all = set(pool.map(lambda store: store.open(), stores))
    assert len(secrets_of_all) == 1
    for store in stores:
        store.close()


def test_a_table_of_somebody_else_is_refused(service, session):
    """A table with another key is not ours, and stays as it is."""
    client = session.client("dynamodb", endpoint_url=service.url)
    client.create_table(
        TableName="orders",
        KeySchema=[{"AttributeName": "order", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "order", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    store = DynamoStore("orders", session=session, endpoint_url=service.url)
    with pytest.raises(StoreUnusable, match="no table of retrysafe's"):
        store.open()
    store.close()
    assert client.scan(TableName="orders")["Items"] == []


def test_a_newer_table_is_refused(shelf):
    """A table that a later release has written is left to that release."""
    shelf.client.update_item(
        TableName=shelf.name,
        Key={"record_id": {"B": META}},
        UpdateExpression="SET version = :later",
        ExpressionAttributeValues={":later": {"N": str(SCHEMA_VERSION + 1)}},
    )
    with pytest.raises(StoreUnusable, match="upgrade retrysafe"):
        shelf.another()


def test_a_table_that_is_gone_is_not_made_anew(shelf):
    """A table that was removed while it was in use has forgotten everything: nothing runs until somebody looked."""
    shelf.client.delete_table(TableName=shelf.name)
    with pytest.raises(StoreUnusable, match="no such table"):
        shelf.claim()


# --- responses in parts ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size_bytes", "parts"),
    [(INLINE_BYTES_MAX, 0), (INLINE_BYTES_MAX + 1, 1), (PART_BYTES, 1), (PART_BYTES + 1, 2), (1 << 20, 3)],
)
def test_a_large_response_is_in_parts(shelf, size_bytes, parts):
    """What is too large for its item is in as few others as can hold it, and comes back whole."""
    response = secrets.token_bytes(size_bytes)
    claim = shelf.claim()
    assert shelf.store.perform(CompleteIfHeld(claim, response, LIFETIME_MS, KEEP_MS))
    assert len(shelf.items()) == 1 + parts
    assert shelf.store.perform(Read(shelf.record_id)).record.response == response


@pytest.mark.parametrize("transition", ["expire", "purge", "forget"])
def test_parts_go_with_their_response(shelf, transition):
    """When a response is over its parts are deleted, and the record can be read before and after."""
    claim = shelf.claim()
    shelf.store.perform(CompleteIfHeld(claim, bytes(1 << 20), LIFETIME_MS, KEEP_MS))
    shelf.clock.advance(LIFETIME_MS + (0 if transition == "expire" else KEEP_MS))
    if transition == "forget":
        assert shelf.store.perform(ForgetIfOver(shelf.record_id, claim.token))
    else:
        assert not shelf.store.perform(Purge()).more
    assert len(shelf.items()) == (1 if transition == "expire" else 0)
    assert shelf.state() is (State.EXPIRED if transition == "expire" else None)


def test_a_completion_that_is_refused_leaves_no_parts(shelf):
    """An owner that comes too late leaves nothing of its response."""
    claim = shelf.claim()
    assert shelf.store.perform(ReleaseIfHeld(claim, KEEP_MS))
    assert not shelf.store.perform(CompleteIfHeld(claim, bytes(1 << 20), LIFETIME_MS, KEEP_MS))
    assert len(shelf.items()) == 1


def test_a_completion_that_stops_between_parts_and_record(shelf):
    """When the record cannot be written after its parts, it is as it was; its parts are deleted when they are over."""
    claim = shelf.claim()
    before = shelf.store.perform(Read(shelf.record_id))
    complete = CompleteIfHeld(claim, bytes(1 << 20), LIFETIME_MS, KEEP_MS)
    shelf.service.trouble("conflict", shelf.name, ["UpdateItem"])
    with pytest.raises(StoreUnavailable):
        shelf.store.perform(complete)
    shelf.service.trouble("conflict", shelf.name, times=0)
    assert shelf.store.perform(Read(shelf.record_id)) == before
    assert shelf.store.perform(complete)
    assert len(shelf.items()) == 1 + 3 + 3
    shelf.clock.advance(LIFETIME_MS + DAY_S * 1_000)
    assert shelf.store.perform(Purge()) == Purged(expired=1, forgotten=0, more=False)
    assert len(shelf.items()) == 1


def test_parts_that_somebody_deleted(shelf):
    """A record whose parts are gone can still be read, and has no response that would pass for one."""
    claim = shelf.claim()
    response = secrets.token_bytes(1 << 20)
    shelf.store.perform(CompleteIfHeld(claim, response, LIFETIME_MS, KEEP_MS))
    part = next(item for item in shelf.items() if "state" not in item)
    shelf.client.delete_item(TableName=shelf.name, Key={"record_id": part["record_id"]})
    record = shelf.store.perform(Read(shelf.record_id)).record
    assert record.state is State.COMPLETED
    assert len(record.response or b"") < len(response)


def test_a_reader_whose_parts_go_meanwhile_looks_again(shelf, monkeypatch):
    """Between the record and its parts the response expired: the reader gets the tombstone."""
    claim = shelf.claim()
    shelf.store.perform(CompleteIfHeld(claim, bytes(1 << 20), LIFETIME_MS, KEEP_MS))
    shelf.clock.advance(LIFETIME_MS)
    other = shelf.another()
    read = shelf.store._table.read

    def read_late(key):
        if key != shelf.record_id:
            other.perform(Purge())
        return read(key)

    monkeypatch.setattr(shelf.store._table, "read", read_late)
    record = shelf.store.perform(Read(shelf.record_id)).record
    assert record.state is State.EXPIRED
    assert record.response is None


# --- requests, journals and histories -------------------------------------------------------------


def test_a_large_request_is_in_parts_until_it_is_finished(shelf):
    """So is a large journal; a claim that finds the record writes none of its own, and completing removes them all."""
    request, journal = secrets.token_bytes(PART_BYTES + 1), secrets.token_bytes(INLINE_BYTES_MAX + 1)
    claiming = ClaimIfAbsent(shelf.record_id, token(), FINGERPRINT, LEASE_MS, KEEP_MS, request=request)
    operations, found = shelf.asked(lambda: shelf.store.perform(claiming))
    assert operations == ["GetItem", "PutItem", "PutItem", "PutItem"]
    operations, again = shelf.asked(lambda: shelf.store.perform(replace(claiming, token=token())))
    assert (operations, again) == (["GetItem"], found)
    claim = Claim(shelf.record_id, claiming.token, 1)
    for kept in (journal, journal[::-1]):
        assert shelf.store.perform(KeepJournalIfHeld(claim, kept))
        assert len(shelf.items()) == 1 + 2 + 1
    details = shelf.store.perform(ReadDetails(shelf.record_id))
    assert (details.request, details.journal) == (request, journal[::-1])
    assert shelf.store.perform(CompleteIfHeld(claim, b"response", LIFETIME_MS, KEEP_MS))
    assert len(shelf.items()) == 1


def test_a_large_request_lives_as_long_as_its_record(shelf):
    """Its parts are dated anew with the record, so that nothing deletes them while an attempt may go on from them."""
    request = secrets.token_bytes(INLINE_BYTES_MAX + 1)
    claiming = ClaimIfAbsent(shelf.record_id, token(), FINGERPRINT, LEASE_MS, KEEP_MS, request=request)
    shelf.store.perform(claiming)
    claim = Claim(shelf.record_id, claiming.token, 1)
    for _ in range(3):
        shelf.clock.advance(KEEP_MS - 1)
        assert shelf.store.perform(RenewIfHeld(claim, LEASE_MS, KEEP_MS))
        operations, _ = shelf.asked(lambda: shelf.store.perform(RenewIfHeld(claim, LEASE_MS, KEEP_MS)))
        assert operations == ["UpdateItem"]
        until_ms = {"state" in item: int(item["forget_at_ms"]["N"]) for item in shelf.items()}
        assert until_ms[False] > until_ms[True]
        shelf.store.perform(Purge())
    assert shelf.store.perform(ReadDetails(shelf.record_id)).request == request
    assert shelf.store.perform(DiscardIfHeld(claim))
    assert shelf.items() == []


def test_an_addition_that_is_sent_again_is_one(shelf):
    """The reply to an addition was lost: the driver sends it again, and it finds itself."""
    assert shelf.store.perform(AddHistory(shelf.record_id, b"first", KEEP_MS))
    shelf.service.trouble("lost", shelf.name, times=1)
    operations, added = shelf.asked(lambda: shelf.store.perform(AddHistory(shelf.record_id, b"second", KEEP_MS)))
    assert (operations, added) == (["UpdateItem", "UpdateItem"], True)
    assert shelf.store.perform(ReadDetails(shelf.record_id)).history == (b"first", b"second")


def test_a_purge_deletes_what_is_over_of_a_history(shelf):
    """Entries that are over are gone from the item; with the last of them the item is."""
    for keep_ms in (KEEP_MS, 2 * KEEP_MS):
        assert shelf.store.perform(AddHistory(shelf.record_id, b"entry", keep_ms))
    shelf.clock.advance(KEEP_MS)
    shelf.store.perform(Purge())
    assert [len(item["entries"]["L"]) for item in shelf.items()] == [1]
    shelf.clock.advance(KEEP_MS)
    shelf.store.perform(Purge())
    assert shelf.items() == []


def test_a_history_that_is_full_says_so(shelf):
    """It takes no more than fits into an item, and what is there stays."""
    entry = bytes(HISTORY_ENTRY_BYTES_MAX)
    addition = AddHistory(shelf.record_id, entry, KEEP_MS)
    added = [shelf.store.perform(addition) for _ in range(10)]
    with pytest.raises(StoreError, match="this history is full"):
        added += [shelf.store.perform(addition) for _ in range(50)]
    kept = shelf.store.perform(ReadDetails(shelf.record_id)).history
    assert len(added) <= len(kept) < 60


SIZES = (100, INLINE_BYTES_MAX + 1, PART_BYTES + 1)


@pytest.mark.parametrize("before_bytes", SIZES)
@pytest.mark.parametrize("after_bytes", SIZES)
def test_a_response_is_exchanged_whatever_its_size(shelf, before_bytes, after_bytes):
    """In the item or in parts, before and after: of many that exchange it one does, and only its parts stay."""
    claim, before = shelf.claim(), secrets.token_bytes(before_bytes)
    assert shelf.store.perform(CompleteIfHeld(claim, before, LIFETIME_MS, KEEP_MS))
    responses = [secrets.token_bytes(after_bytes) for _ in range(6)]
    exchanges = [ReplaceResponseIfSame(shelf.record_id, claim.token, before, response) for response in responses]
    other = secrets.token_bytes(before_bytes)
    assert not shelf.store.perform(ReplaceResponseIfSame(shelf.record_id, claim.token, other, responses[0]))
    assert not shelf.store.perform(ReplaceResponseIfSame(shelf.record_id, token(), before, responses[0]))
    with ThreadPoolExecutor(len(exchanges)) as pool:
        done = list(pool.map(shelf.store.perform, exchanges))
    assert sorted(done) == [False] * 5 + [True]
    after = responses[done.index(True)]
    assert shelf.store.perform(Read(shelf.record_id)).record.response == after
    parts = [item for item in shelf.items() if "state" not in item]
    assert len(parts) == (0 if after_bytes <= INLINE_BYTES_MAX else 1 + (after_bytes - 1) // PART_BYTES)
    (listed,) = shelf.store.perform(ListResponses()).responses
    assert listed.head == after[:STORED_HEAD_BYTES]
    (count,) = shelf.store.perform(TakeStats()).records
    assert count.response_bytes == after_bytes


def test_an_exchange_on_nothing(shelf):
    """There is nothing to exchange, and nothing is left behind."""
    large = secrets.token_bytes(INLINE_BYTES_MAX + 1)
    assert not shelf.store.perform(ReplaceResponseIfSame(shelf.record_id, token(), b"x", large))
    shelf.claim()
    assert not shelf.store.perform(ReplaceResponseIfSame(shelf.record_id, token(), b"x", large))
    assert len(shelf.items()) == 1


def test_looking_at_many_goes_through_every_page(shelf):
    """Some megabytes are several pages of the service's: every record is counted, and every response is listed."""
    for _ in range(12):
        shelf.record_id = secrets.token_bytes(32)
        assert shelf.store.perform(CompleteIfHeld(shelf.claim(), bytes(PART_BYTES), LIFETIME_MS, KEEP_MS))
    operations, stats = shelf.asked(lambda: shelf.store.perform(TakeStats()))
    assert operations.count("Scan") > 1
    ((records, size_bytes),) = [(count.records, count.response_bytes) for count in stats.records]
    assert (records, size_bytes) == (12, 12 * PART_BYTES)
    page = shelf.store.perform(ListResponses(batch_max=5))
    listed = {stored.record_id for stored in page.responses}
    while page.next_after is not None:
        page = shelf.store.perform(ListResponses(page.next_after, batch_max=5))
        assert len(page.responses) <= 5
        listed |= {stored.record_id for stored in page.responses}
    assert len(listed) == 12


def test_a_count_is_sent_once(shelf):
    """A count whose reply was lost was added, and is not added again; its caller is told of the doubt."""
    shelf.service.trouble("lost", shelf.name, times=1)
    with pytest.raises(StoreUnavailable, match="may or may not"):
        shelf.store.perform(CountAnswers((AnswerCount("*", 1, 2),)))
    assert shelf.store.perform(TakeStats()).answers == (AnswerCount("*", 1, 2),)


def test_counts_go_by_themselves(shelf):
    """What was counted on a day is deleted when no one may ask for it any more, by the service or by a purge."""
    shelf.store.perform(CountAnswers((AnswerCount("*", 1, 2),)))
    (counted,) = shelf.items()
    over_ms = (shelf.clock() // DAY_MS + ANSWER_DAYS_KEPT) * DAY_MS
    assert int(counted["forget_at_s"]["N"]) >= over_ms // 1_000
    shelf.clock.advance(over_ms - 1 - shelf.clock())
    assert shelf.store.perform(Purge()) == Purged(0, 0, more=False)
    assert shelf.store.perform(TakeStats(days=ANSWER_DAYS_KEPT)).answers == (AnswerCount("*", 1, 2),)
    shelf.clock.advance(1)
    assert shelf.store.perform(TakeStats(days=ANSWER_DAYS_KEPT)).answers == ()
    assert shelf.store.perform(Purge()) == Purged(0, 0, more=False)
    assert shelf.items() == []


def test_a_purge_goes_through_every_page(shelf):
    """A table of several pages is purged to its end, batch after batch."""
    for _ in range(6):
        claim = Claim(secrets.token_bytes(32), token(), 1)
        shelf.store.perform(ClaimIfAbsent(claim.record_id, claim.token, FINGERPRINT, LEASE_MS, KEEP_MS))
        shelf.store.perform(CompleteIfHeld(claim, bytes(PART_BYTES), LIFETIME_MS, KEEP_MS))
    assert "LastEvaluatedKey" in shelf.client.scan(TableName=shelf.name)
    shelf.clock.advance(LIFETIME_MS)
    batches = [shelf.store.perform(Purge(batch_max=4))]
    while batches[-1].more:
        assert len(batches) < 20
        batches.append(shelf.store.perform(Purge(batch_max=4)))
    assert sum(batch.expired for batch in batches) == 6
    assert len(shelf.items()) == 6


# --- time -----------------------------------------------------------------------------------------


def test_the_services_clock_decides(session):
    """Time is the service's, though this host's clock is a day behind it; and so for every store."""
    with running(ahead_s=DAY_S) as service:
        stores = [DynamoStore("keys", session=session, endpoint_url=service.url) for _ in range(2)]
        for store in stores:
            store.open()
            found = store.perform(ClaimIfAbsent(bytes(32), token(), FINGERPRINT, LEASE_MS, KEEP_MS))
            assert -3_000 < found.now_ms - (host_clock() + DAY_S * 1_000) <= 1_000
            assert found.record.created_at_ms <= found.now_ms
            store.close()


def test_a_store_that_has_not_heard_the_time_asks(shelf):
    """The first transition of a process asks what time it is; the next ones know."""
    store = shelf.closed(clock=None)
    claiming = ClaimIfAbsent(shelf.record_id, token(), FINGERPRINT, LEASE_MS, KEEP_MS)
    operations, _ = shelf.asked(lambda: [store.perform(claiming) for _ in range(3)])
    assert operations == ["GetItem", "PutItem", "PutItem", "PutItem"]


def test_a_writer_that_is_behind_dates_nothing_back(shelf):
    """A record that was dated by a clock that is ahead is written on with its date, in one more request."""
    behind = shelf.another(clock=ManualClock(shelf.clock() - 3_600_000))
    claim = shelf.claim()
    operations, happened = shelf.asked(lambda: behind.perform(transition_of(Event.COMPLETE, claim, None)))
    assert happened
    assert operations == ["UpdateItem", "UpdateItem"]
    assert shelf.store.perform(Read(shelf.record_id)).record.settled_at_ms == shelf.clock()


# --- threads and processes ------------------------------------------------------------------------


def test_an_event_loop_is_served_by_few_threads(shelf):
    """However many transitions are submitted, the store has a bounded number of threads; closing ends them."""
    claims = [ClaimIfAbsent(secrets.token_bytes(32), token(), FINGERPRINT, LEASE_MS, KEEP_MS) for _ in range(100)]

    def threads():
        return [thread for thread in threading.enumerate() if shelf.name in thread.name]

    async def submit():
        return await asyncio.gather(*(shelf.store.submit(claim) for claim in claims))

    found = asyncio.run(submit())
    assert [one.record.token for one in found] == [claim.token for claim in claims]
    assert 1 <= len(threads()) <= 16
    shelf.store.close()
    assert threads() == []


def test_closing_finishes_what_was_submitted(shelf):
    """What was handed over before the store is closed is done, and answered."""

    async def submit_and_close():
        claims = [ClaimIfAbsent(secrets.token_bytes(32), token(), FINGERPRINT, LEASE_MS, KEEP_MS) for _ in range(40)]
        futures = [shelf.store.submit(claim) for claim in claims]
        await asyncio.to_thread(shelf.store.close)
        return [found.record.token for found in await asyncio.gather(*futures)] == [claim.token for claim in claims]

    assert asyncio.run(submit_and_close())
    assert len(shelf.items()) == 40


FORKS = """
import asyncio, os, secrets, sys
import boto3
from retrysafe.protocol.transitions import ClaimIfAbsent
from retrysafe.stores.dynamodb import DynamoStore

session = boto3.Session(aws_access_key_id="id", aws_secret_access_key="secret", region_name="eu-central-1")
store = DynamoStore("forks", session=session, endpoint_url=sys.argv[1])

async def claimed():
    claims = [ClaimIfAbsent(secrets.token_bytes(32), secrets.token_bytes(16), b"f", 60_000, 0) for _ in range(100)]
    found = await asyncio.gather(*map(store.submit, claims))
    return [one.record.token for one in found] == [claim.token for claim in claims]

secret = store.open()
assert asyncio.run(claimed())
connections = store._table._clients
child = os.fork()
assert child or store._table._clients is not connections  # which this service would not notice: it keeps none open
assert asyncio.run(claimed())  # both at the same time
if child:
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))
assert store.open() == secret
"""


def test_a_fork_uses_connections_of_its_own(service):
    """A child of a process with an open store has connections and threads of its own, and its parent keeps its."""
    command = [sys.executable, "-W", "ignore", "-c", FORKS, service.url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_nothing_of_a_record_is_logged(shelf, caplog):
    """At the level that people run with, a whole life of a record leaves no line."""
    caplog.set_level(logging.INFO)
    claim = shelf.claim()
    shelf.service.trouble("lost", shelf.name, times=1)
    shelf.store.perform(CompleteIfHeld(claim, bytes(1 << 20), LIFETIME_MS, KEEP_MS))
    shelf.clock.advance(LIFETIME_MS)
    shelf.store.perform(Purge())
    assert not [line for line in caplog.messages if claim.record_id.hex() in line or claim.token.hex() in line]


def test_where_no_thread_is_to_be_had_it_is_said(monkeypatch):
    """Nobody waits for ever, and nobody is told that nothing was done."""

    def no_more(_):
        raise RuntimeError("can't start new thread")

    class Store(DynamoStore):
        def _do(self, transition):
            raise AssertionError("no thread is there to do it")

    async def submit():
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_more)
            pending = store.submit(Read(bytes(32)))
        with pytest.raises(StoreUnavailable, match="perhaps it was done"):
            await pending

    store = Store("t", region="eu-west-1")
    asyncio.run(submit())
