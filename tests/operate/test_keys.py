"""`keys list`, `show`, `resolve`, `release` and `forget`: from the door, through the command line, and back."""

from __future__ import annotations

import asyncio
import getpass
import hashlib
import json
import os
import pty
import secrets
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace

import pytest

from retrysafe import Policy, operation
from retrysafe.model import State
from retrysafe.operate import keys, shown
from retrysafe.protocol.transitions import AddHistory, ClaimIfAbsent, CompleteIfHeld, ListRecords, Read, ReadDetails
from retrysafe.stores.memory import MemoryStore
from retrysafe.testing import ManualClock
from tests.doors.connections import ask, protected
from tests.doors.handlers import Shop, content_of, piece, start
from tests.operate.shops import (
    DAY_MS,
    NEW,
    NO_STEPS,
    claimed,
    command,
    environment,
    put,
    requests,
    shown_of,
    store_of,
    url_of,
)

WHY = ("--note", "asked the bank", "--actor", "ann")


class Lost:
    """An application that charges, and says that it does not know whether that worked."""

    def __init__(self):
        self.calls = 0

    async def __call__(self, connection, receive, send):
        await content_of(receive)
        self.calls += 1
        operation().outcome_unknown()
        await send(start(500))
        await send(piece(b"?"))


@pytest.fixture
def store(tmp_path):
    """The file, opened; and nobody else's records in it."""
    opened = store_of(tmp_path)
    opened.open()
    yield opened
    opened.close()


def listed(folder, *arguments):
    result = command("keys", "list", "--json", *arguments, "--store", url_of(folder))
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def settle(folder, action, record_id, *arguments, **variables):
    return command("keys", action, record_id.hex(), *arguments, *WHY, "--store", url_of(folder), **variables)


# --- list -------------------------------------------------------------------------------------------


def test_list_by_state_and_route(store, tmp_path):
    """Every record, or those in the states that are named, of the route that is named."""
    ids = {state: put(store, state) for state in State if state is not State.EXPIRED}
    elsewhere = put(store, State.UNKNOWN, route="POST /refunds")
    assert {record["id"] for record in listed(tmp_path)["records"]} == {i.hex() for i in (*ids.values(), elsewhere)}
    wanted = listed(tmp_path, "--state", "unknown", "--state", "retryable", "--route", "POST /orders")
    assert {record["id"] for record in wanted["records"]} == {ids[State.UNKNOWN].hex(), ids[State.RETRYABLE].hex()}


def test_list_what_is_stuck():
    """In progress, and the lease is over; a live owner is not among them, nor is what nobody asked for."""
    store = MemoryStore(clock := ManualClock())
    stuck = claimed(store, lease_ms=1_000)
    claimed(store, lease_ms=60_000)
    clock.advance(1_000)
    listing = keys.list_records(store, keys.Wanted((), stuck=True))
    assert [record.record_id for record in listing.records] == [stuck.record_id]
    (line,) = shown.list_lines(listing)
    assert line.startswith(f"{stuck.record_id.hex()}  stuck, lease over for 0 s, attempt 1, claimed 1 s ago")
    assert keys.list_records(store, keys.Wanted((State.UNKNOWN,))).records == ()


def test_list_what_is_old():
    """By the latest claim, the oldest first."""
    store = MemoryStore(clock := ManualClock())
    old = []
    for _ in range(3):
        old.append(put(store, State.UNKNOWN))
        clock.advance(60_000)
    put(store, State.UNKNOWN)
    found = keys.list_records(store, keys.Wanted((State.UNKNOWN,), older_than_ms=60_000)).records
    assert [record.record_id for record in found] == old


def test_list_by_a_clock_that_is_a_little_behind():
    """Processes agree on the time of some services to within a second; a record of this moment is listed."""

    class Behind(MemoryStore):
        def perform(self, transition):
            answer = super().perform(transition)
            return replace(answer, now_ms=answer.now_ms - 900) if isinstance(transition, ListRecords) else answer

    store = Behind(ManualClock())
    put(store, State.UNKNOWN)
    listing = keys.list_records(store, keys.Wanted((State.UNKNOWN,)))
    assert len(listing.records) == 1
    assert shown.list_document(listing)["records"][0]["claimed_s_ago"] == 0


def test_list_has_a_limit(store, tmp_path):
    """It says that there is more, and stops."""
    for _ in range(5):
        put(store, State.UNKNOWN)
    found = listed(tmp_path, "--limit", "3")
    assert (len(found["records"]), found["more"]) == (3, True)
    assert listed(tmp_path, "--limit", "5")["more"] is False
    result = command("keys", "list", "--limit", "3", "--store", url_of(tmp_path))
    assert (len(result.stdout.splitlines()), "raise --limit" in result.stderr) == (3, True)


def test_list_of_many_pages(store):
    """Each record once, over as many pages as it takes."""
    ids = {put(store, State.UNKNOWN) for _ in range(450)}
    found = keys.list_records(store, keys.Wanted((State.UNKNOWN,), limit=1_000))
    assert {record.record_id for record in found.records} == ids
    assert len(found.records) == len(ids)


def test_an_empty_list_is_said(store, tmp_path):
    """Nothing on standard output, which programs read; for people a word on standard error."""
    result = command("keys", "list", "--store", url_of(tmp_path))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no such records\n")


# --- which ------------------------------------------------------------------------------------------


def test_a_record_by_its_beginning(store, tmp_path):
    """As logs name it; ambiguous or unknown it is refused, and nothing is chosen."""
    ids = [bytes.fromhex("aabbccdd") + secrets.token_bytes(28) for _ in range(2)]
    for record_id in ids:
        store.perform(ClaimIfAbsent(record_id, bytes(16), b"f", 60_000, DAY_MS))
    unique = next(n for n in range(9, 64) if ids[0].hex()[:n] != ids[1].hex()[:n])
    by_beginning = command("keys", "show", ids[0].hex()[:unique].upper(), "--store", url_of(tmp_path))
    assert by_beginning.stdout.startswith(f"record {ids[0].hex()}\n")
    for digits, words in (("aabbccdd", "2 records' ids begin"), ("00000000", "no record's id begins")):
        result = command("keys", "show", digits, "--store", url_of(tmp_path))
        assert (result.exit_code, result.stdout, words in result.stderr) == (1, "", True)


@pytest.mark.parametrize("text", ["aabbccd", "xyz", "k-1", "a" * 65, ""])
def test_what_is_no_id(text, store, tmp_path):
    """Exit code 2, and what was typed, a key perhaps, is not repeated."""
    result = command("keys", "show", text, "--store", url_of(tmp_path))
    assert (result.exit_code, "hexadecimal digits" in result.stderr) == (2, True)
    assert not text or text not in result.stderr.replace("retrysafe: a record is named", "")


@pytest.mark.parametrize("spelling", ["k-1", '"k-1"', "  k-1  "])
def test_a_record_by_its_key(spelling, tmp_path):
    """The key as its client spells it comes from a file, and the account with it, or from another one."""
    requests(tmp_path, ["k-1"])
    (only,) = listed(tmp_path)["records"]
    (tmp_path / "key").write_text(f"{spelling}\n")
    (tmp_path / "account").write_text("alice\n")
    for account in (("--account", "alice"), ("--account-file", f"{tmp_path}/account")):
        arguments = ("--key-file", f"{tmp_path}/key", *account, "--store", url_of(tmp_path))
        result = command("keys", "show", "--json", *arguments)
        assert (result.exit_code, json.loads(result.stdout)["id"]) == (0, only["id"])
    another = command("keys", "show", "--key-file", f"{tmp_path}/key", "--account", "bob", "--store", url_of(tmp_path))
    assert (another.exit_code, "no such record" in another.stderr) == (1, True)
    assert "check that it is the right store, and of a key its spelling, --account and --namespace" in another.stderr


def test_the_account_of_the_verifier_is_another_variable(tmp_path):
    """RETRYSAFE_ACCOUNT is a header field for `verify`, and no account."""
    requests(tmp_path, ["k-1"])
    (tmp_path / "key").write_text("k-1\n")
    show = ("keys", "show", "--key-file", f"{tmp_path}/key", "--store", url_of(tmp_path))
    variables = {"RETRYSAFE_ACCOUNT": "X-Account-Id: bob", "RETRYSAFE_KEY_ACCOUNT": "alice"}
    assert command(*show, **variables).exit_code == 0


def test_a_key_by_way_of_the_standard_input(tmp_path):
    """One line, or two with the account in the second."""
    requests(tmp_path, ["k-1"])
    for given, account in ((b"k-1\n", ("--account", "alice")), (b"k-1\nalice\n", ("--account-file", "-"))):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "retrysafe",
                "keys",
                "show",
                "--key-file",
                "-",
                *account,
                "--store",
                url_of(tmp_path),
            ],
            input=given,
            capture_output=True,
            env=environment(),
            check=True,
            cwd=tmp_path,
        )
        assert b"state: completed\n" in done.stdout


def test_a_key_on_a_terminal_is_asked_for_and_not_shown(tmp_path):
    """Whoever looks over the shoulder, or into the scrollback, sees a prompt."""
    requests(tmp_path, ["canary-4242"])
    terminal, seen_by_it = pty.openpty()
    arguments = ("keys", "show", "--key-file", "-", "--account", "alice", "--store", url_of(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-m", "retrysafe", *arguments],
        stdin=seen_by_it,
        stdout=subprocess.PIPE,
        stderr=seen_by_it,
        env=environment(),
        cwd=tmp_path,
        start_new_session=True,
    )
    shown = os.read(terminal, 1_000)
    while b"Idempotency-Key: " not in shown:
        shown += os.read(terminal, 1_000)
    os.write(terminal, b"canary-4242\n")
    said, _ = process.communicate(timeout=20)
    os.close(seen_by_it)
    with suppress(OSError):  # a terminal that nobody writes to any more ends with an error
        while piece := os.read(terminal, 1_000):
            shown += piece
    os.close(terminal)
    assert (process.returncode, b"state: completed\n" in said) == (0, True)
    assert b"canary" not in shown + said


@pytest.mark.parametrize(
    ("content", "arguments", "words"),
    [
        ("two words", ("--account", "alice"), "not one idempotency key"),
        ("", ("--account", "alice"), "not one idempotency key"),
        ("k-1", (), "belongs to an account"),
    ],
)
def test_what_is_no_key(content, arguments, words, store, tmp_path):
    """Exit code 2, and nothing of it is repeated."""
    (tmp_path / "key").write_text(content)
    result = command("keys", "show", "--key-file", f"{tmp_path}/key", *arguments, "--store", url_of(tmp_path))
    assert (result.exit_code, words in result.stderr) == (2, True)
    assert not content or content not in result.stderr


def test_one_record_is_named_once(store, tmp_path):
    """An id and a key may name two; neither names none."""
    (tmp_path / "key").write_text("k-1")
    for arguments in ((), ("ab" * 32, "--key-file", f"{tmp_path}/key")):
        result = command("keys", "show", *arguments, "--store", url_of(tmp_path))
        assert (result.exit_code, "name the record" in result.stderr) == (2, True)


# --- show -------------------------------------------------------------------------------------------


def test_show_a_completed_record(tmp_path):
    """Where its answer stands, and nothing of it; with --response all of it."""
    requests(tmp_path, ["k-1"], shop=Shop(headers=[(b"x-canary", b"5353"), (b"content-type", b"text/plain")]))
    (only,) = listed(tmp_path)["records"]
    record_id = bytes.fromhex(only["id"])
    said = shown_of(tmp_path, record_id)
    assert said["state"] == "completed"
    assert said["response"] == {
        "kept": "whole", "encrypted": False, "status": 201, "content_bytes": 7,
        "stored_bytes": said["response"]["stored_bytes"],
    }  # fmt: skip
    assert (said["history"], said["request_kept"]) == ([], False)
    result = command("keys", "show", only["id"], "--store", url_of(tmp_path))
    assert "response: status 201, 7 bytes, kept whole\n" in result.stdout
    assert "5353" not in result.stdout
    whole = command("keys", "show", only["id"], "--response", "--store", url_of(tmp_path)).stdout
    assert whole.endswith("x-canary: 5353\ncontent-type: text/plain\n\norder 1\n")
    assert shown_of(tmp_path, record_id, "--response")["response"]["body"] == "order 1"


def test_show_what_is_encrypted(tmp_path):
    """With the keys as any other; without them it says what it would take."""
    requests(tmp_path, ["k-1"], encryption_keys=[NEW])
    (only,) = listed(tmp_path)["records"]
    record_id = bytes.fromhex(only["id"])
    with_keys = shown_of(tmp_path, record_id, RETRYSAFE_ENCRYPTION_KEYS=NEW)["response"]
    assert (with_keys["status"], with_keys["encrypted"]) == (201, True)
    without = shown_of(tmp_path, record_id)["response"]
    assert (without["kept"], without["fault"]) == ("unreadable", "it is encrypted, and there are no encryption_keys")


def test_show_every_attempt(tmp_path):
    """A rate limit, then a dead owner, then success: each attempt with how it ended."""
    shop = Shop(status=429)
    requests(tmp_path, ["k-1"], shop=shop)
    shop.status = 201
    requests(tmp_path, ["k-1"], shop=shop)
    (only,) = listed(tmp_path)["records"]
    said = shown_of(tmp_path, bytes.fromhex(only["id"]))
    (first,) = said["history"]
    assert (said["attempt"], first["attempt"], first["end"]) == (2, 1, "released")
    assert first["claimed_at"] <= first["settled_at"] <= said["claimed_at"]
    words = command("keys", "show", only["id"], "--store", url_of(tmp_path)).stdout.splitlines()
    assert [line.partition(" (")[0] for line in words if line.startswith("attempt")] == ["attempt 1", "attempt 2"]
    assert [line.rpartition(", ")[2].split()[0] for line in words if line.startswith("attempt")] == [
        "released",
        "completed",
    ]


class Interrupted:
    """An application with two steps, of which the second never comes back."""

    async def __call__(self, connection, receive, send):
        async def call(_):
            return {"secret": "canary-9191"}

        async def lost(_):
            raise ConnectionResetError

        await content_of(receive)
        await operation().step("reserve", call, target="stock")
        await operation().step("charge", lost)


@pytest.mark.parametrize("encryption_keys", [None, [NEW]])
def test_show_the_steps(encryption_keys, tmp_path):
    """By name and state; nothing of what they were called with or came to. Without the keys it says what it takes."""
    with pytest.raises(ConnectionResetError):
        requests(tmp_path, ["k-1"], shop=Interrupted(), encryption_keys=encryption_keys)
    (only,) = listed(tmp_path)["records"]
    record_id, with_keys = bytes.fromhex(only["id"]), {"RETRYSAFE_ENCRYPTION_KEYS": NEW} if encryption_keys else {}
    assert shown_of(tmp_path, record_id, **with_keys)["steps"] == [
        {"name": "reserve", "target": "stock", "state": "done", "sends": 1},
        {"name": "charge", "target": "", "state": "open", "sends": 1},
    ]
    lines = command("keys", "show", only["id"], "--store", url_of(tmp_path), **with_keys).stdout
    assert "step reserve of stock: done, sent once\nstep charge: open, sent once\n" in lines
    assert "canary" not in lines
    if encryption_keys:
        assert shown_of(tmp_path, record_id)["steps"] == {"fault": "it is encrypted, and there are no encryption_keys"}


def test_what_did_not_take_effect_leaves_no_step_open(tmp_path):
    """The step whose call never came back is taken out of the journal, and what was done stays in it."""
    with pytest.raises(ConnectionResetError):
        requests(tmp_path, ["k-1"], shop=Interrupted(), encryption_keys=[NEW])
    (only,) = listed(tmp_path)["records"]
    record_id = bytes.fromhex(only["id"])
    without = settle(tmp_path, "resolve", record_id, "--not-done")
    assert (without.exit_code, "the steps of this operation cannot be read" in without.stderr) == (2, True)
    assert shown_of(tmp_path, record_id)["history"] == []
    assert settle(tmp_path, "resolve", record_id, "--not-done", RETRYSAFE_ENCRYPTION_KEYS=NEW).exit_code == 0
    said = shown_of(tmp_path, record_id, RETRYSAFE_ENCRYPTION_KEYS=NEW)
    assert (said["state"], [step["name"] for step in said["steps"]]) == ("retryable", ["reserve"])


def test_takers_that_race_leave_one_attempt_behind():
    """Each adds the attempt that it is about to follow; it is shown once."""
    store = MemoryStore(clock := ManualClock())
    shop = Shop()

    async def race():
        door = protected(shop, store, policy=Policy(recovery="rerun", lease="1s"))
        shop.gate.clear()
        first = asyncio.create_task(ask(door))
        await shop.entered.wait()
        clock.advance(2_000)
        shop.gate.set()
        await asyncio.gather(first, *(ask(door) for _ in range(5)))

    asyncio.run(race())
    ((record_id, record),) = store._records.items()
    details = store.perform(ReadDetails(record_id))
    lines = [line for line in shown.lines(record_id, details, None, NO_STEPS) if line.startswith("attempt")]
    assert len(lines) == record.attempt


def test_what_others_wrote_cannot_steer_a_terminal(store, tmp_path):
    """A route, a note, an entry of another release: spelled out where a terminal would obey it."""
    record_id = put(store, State.UNKNOWN, route="POST /a\x1b[2J")
    store.perform(AddHistory(record_id, b'{"v":9}', DAY_MS))
    result = command("keys", "show", record_id.hex(), "--store", url_of(tmp_path))
    assert "route: POST /a\\x1b[2J\n" in result.stdout
    assert "an entry that this release cannot read: an entry of another release\n" in result.stdout
    assert "\x1b" not in result.stdout + command("keys", "list", "--store", url_of(tmp_path)).stdout


# --- resolve ----------------------------------------------------------------------------------------


def test_it_took_effect(tmp_path):
    """The answer that was found out is what retries get, and nothing runs again."""
    lost = Lost()
    requests(tmp_path, ["k-1"], shop=lost)
    (only,) = listed(tmp_path, "--state", "unknown")["records"]
    (tmp_path / "answer").write_bytes(b'{"id": 7}')
    answer = ("--status", "201", "--header", "Content-Type: application/json", "--header", "Location: /orders/7")
    result = settle(
        tmp_path, "resolve", bytes.fromhex(only["id"]), "--completed", *answer, "--body", f"{tmp_path}/answer"
    )
    assert (result.exit_code, result.stderr) == (0, "")
    assert "completed; retries get the answer until 20" in result.stdout
    (retry,) = requests(tmp_path, ["k-1"], shop=lost)
    assert (retry.status, retry.body, retry.replayed, lost.calls) == (201, b'{"id": 7}', True, 1)
    assert (retry.values("content-type"), retry.values("location")) == (["application/json"], ["/orders/7"])


def test_it_did_not_take_effect(tmp_path):
    """The next retry runs, as a second attempt of the same operation."""
    shop = Shop()
    requests(tmp_path, ["k-1"], shop=Lost())
    (only,) = listed(tmp_path, "--state", "unknown")["records"]
    result = settle(tmp_path, "resolve", bytes.fromhex(only["id"]), "--not-done")
    assert (result.exit_code, result.output) == (0, f"record {only['id']}: retryable; the next retry runs\n")
    (retry,) = requests(tmp_path, ["k-1"], shop=shop)
    assert (retry.status, retry.replayed, shop.effects) == (201, False, 1)
    said = shown_of(tmp_path, bytes.fromhex(only["id"]))
    assert [entry.get("action", entry.get("end")) for entry in said["history"]] == ["resolve --not-done", "released"]


def test_the_trail_says_who_and_why(store, tmp_path):
    """When, what was done, to which attempt, in which state it was; the user of the system if nobody else is named."""
    record_id = put(store, State.UNKNOWN)
    settle(tmp_path, "resolve", record_id, "--not-done")
    (entry,) = shown_of(tmp_path, record_id)["history"]
    assert {name: entry[name] for name in ("action", "actor", "note", "attempt", "state_before", "took_effect")} == {
        "action": "resolve --not-done", "actor": "ann", "note": "asked the bank", "attempt": 1,
        "state_before": "unknown", "took_effect": True,
    }  # fmt: skip
    another = put(store, State.UNKNOWN)
    arguments = ("--not-done", "--note", "looked", "--store", url_of(tmp_path))
    assert command("keys", "resolve", another.hex(), *arguments).exit_code == 0
    assert shown_of(tmp_path, another)["history"][0]["actor"] == getpass.getuser()
    lines = command("keys", "show", another.hex(), "--store", url_of(tmp_path)).stdout
    assert f": {getpass.getuser()}: resolve --not-done of attempt 1 (" in lines
    assert ", unknown: looked\n" in lines


def test_what_is_stuck_is_unknown_first(store, tmp_path):
    """Its owner is gone: it is marked unknown, and resolved."""
    claim = claimed(store, lease_ms=0)
    assert settle(tmp_path, "resolve", claim.record_id, "--not-done").exit_code == 0
    assert store.perform(Read(claim.record_id)).record.state is State.RETRYABLE


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (State.IN_PROGRESS, "its owner holds it for"),
        (State.COMPLETED, "retries get its answer"),
        (State.RETRYABLE, "the next retry runs"),
    ],
)
@pytest.mark.parametrize("how", [("--not-done",), ("--completed", "--status", "200")])
def test_only_unknown_records_are_resolved(state, words, how, store, tmp_path):
    """Exit code 1, what to do instead, and no trace of what was not even tried."""
    record_id = put(store, state)
    before = store.perform(Read(record_id)).record
    result = settle(tmp_path, "resolve", record_id, *how)
    assert (result.exit_code, result.stdout, words in result.stderr) == (1, "", True)
    assert store.perform(Read(record_id)).record == before
    assert store.perform(ReadDetails(record_id)).history == ()


def test_an_answer_is_encrypted_as_the_door_would(tmp_path):
    """With the keys; without them it is refused, because it would lie there in the open."""
    lost = Lost()
    requests(tmp_path, ["k-1"], encryption_keys=[NEW])
    requests(tmp_path, ["k-2"], shop=lost, encryption_keys=[NEW])
    (only,) = listed(tmp_path, "--state", "unknown")["records"]
    record_id = bytes.fromhex(only["id"])
    (tmp_path / "answer").write_bytes(b"canary-7171")
    answer = ("--completed", "--status", "200", "--body", f"{tmp_path}/answer")
    refused = settle(tmp_path, "resolve", record_id, *answer)
    assert (refused.exit_code, "give the encryption keys" in refused.stderr) == (2, True)
    assert settle(tmp_path, "resolve", record_id, *answer, RETRYSAFE_ENCRYPTION_KEYS=NEW).exit_code == 0
    (tmp_path / "answer").unlink()
    assert all(b"canary-7171" not in file.read_bytes() for file in tmp_path.iterdir())
    (retry,) = requests(tmp_path, ["k-2"], shop=lost, encryption_keys=[NEW])
    assert (retry.body, retry.replayed) == (b"canary-7171", True)


def test_the_policy_of_the_route_says_what_is_kept_and_for_how_long(store, tmp_path):
    """As the door would: a lifetime of its own, and a receipt where a route keeps no content."""
    record_id, other = put(store, State.UNKNOWN), put(store, State.UNKNOWN, route="*")
    (tmp_path / "retrysafe.toml").write_text(
        '[policy]\nlifetime = "2d"\n[routes."POST /orders"]\nlifetime = "7d"\nstore_body = "none"\n'
    )
    (tmp_path / "answer").write_bytes(b"hello")
    answer = (
        "--completed",
        "--status",
        "200",
        "--body",
        f"{tmp_path}/answer",
        "--config",
        f"{tmp_path}/retrysafe.toml",
    )
    for each, days, kept in ((record_id, 7, "receipt"), (other, 2, "whole")):
        assert settle(tmp_path, "resolve", each, *answer).exit_code == 0
        record = store.perform(Read(each)).record
        assert (record.expires_at_ms - record.settled_at_ms, record.forget_at_ms - record.expires_at_ms) == (
            days * DAY_MS,
            30 * DAY_MS,
        )
        assert shown_of(tmp_path, each)["response"]["kept"] == kept


def test_an_answer_that_is_too_large_is_a_receipt(store, tmp_path):
    """As the door would: its length and its digest."""
    record_id = put(store, State.UNKNOWN)
    (tmp_path / "answer").write_bytes(b"x" * 200)
    answer = ("--completed", "--status", "200", "--body", f"{tmp_path}/answer", "--policy", "response_bytes_max=100")
    assert settle(tmp_path, "resolve", record_id, *answer).exit_code == 0
    stored = store.perform(Read(record_id)).record.response
    assert hashlib.sha256(b"x" * 200).digest() in stored
    said = shown_of(tmp_path, record_id)["response"]
    assert (said["kept"], said["content_bytes"]) == ("receipt", 200)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--completed",), "--completed takes --status"),
        (("--not-done", "--status", "200"), "--not-done has none of them"),
        (("--completed", "--status", "99"), "a final answer has 200 to 599"),
        (("--completed", "--status", "204", "--body", "answer"), "has no content"),
        (("--completed", "--status", "200", "--header", "no colon"), "--header takes a field like"),
        (("--completed", "--status", "200", "--header", "X: a\r\nY: b"), "--header takes a field like"),
        (("--completed", "--status", "200", "--header", "Set-Cookie: a=b"), "set-cookie: no replay has this field"),
        ((), "say what became of it"),
    ],
)
def test_an_answer_that_cannot_be_kept(arguments, words, store, tmp_path, monkeypatch):
    """Exit code 2, before anything is written."""
    record_id = put(store, State.UNKNOWN)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "answer").write_bytes(b"content")
    result = settle(tmp_path, "resolve", record_id, *arguments)
    assert (result.exit_code, words in result.stderr) == (2, True), result.stderr
    assert store.perform(Read(record_id)).record.state is State.UNKNOWN
    assert store.perform(ReadDetails(record_id)).history == ()


@pytest.mark.parametrize("note", ["", "  ", "two\nlines", "\x1b[2J", "x" * 3_001])
def test_a_note_is_a_line_that_can_be_printed(note, store, tmp_path):
    """Exit code 2, and nothing is done without one."""
    record_id = put(store, State.UNKNOWN)
    result = command("keys", "resolve", record_id.hex(), "--not-done", "--note", note, "--store", url_of(tmp_path))
    assert (result.exit_code, "--note must have" in result.stderr) == (2, True)
    assert store.perform(ReadDetails(record_id)).history == ()


# --- release and forget -----------------------------------------------------------------------------


@pytest.mark.parametrize(("action", "danger"), [("release", "happens twice"), ("forget", "new operations")])
def test_what_is_dangerous_says_so(action, danger, store, tmp_path):
    """Without --yes nothing happens, and the danger is said."""
    record_id = put(store, State.IN_PROGRESS if action == "release" else State.UNKNOWN)
    result = settle(tmp_path, action, record_id)
    assert (result.exit_code, danger in result.stderr, "--yes" in result.stderr) == (2, True, True)
    assert store.perform(ReadDetails(record_id)).history == ()


@pytest.mark.parametrize("lease_ms", [0, 60_000])
def test_release(lease_ms, store, tmp_path):
    """A claim is taken from its owner, alive or not; the owner can change nothing after that."""
    claim = claimed(store, lease_ms=lease_ms)
    result = settle(tmp_path, "release", claim.record_id, "--yes")
    assert (result.exit_code, result.output.endswith("retryable; the next retry runs\n")) == (0, True)
    assert not store.perform(CompleteIfHeld(claim, b"late", DAY_MS, DAY_MS))
    assert shown_of(tmp_path, claim.record_id)["history"][0]["action"] == "release"


def test_release_of_what_nobody_holds(store, tmp_path):
    """Exit code 1, and what to do instead."""
    result = settle(tmp_path, "release", put(store, State.UNKNOWN), "--yes")
    assert (result.exit_code, "nobody holds it; resolve it" in result.stderr) == (1, True)


@pytest.mark.parametrize("state", [State.COMPLETED, State.RETRYABLE, State.UNKNOWN])
def test_forget(state, store, tmp_path):
    """The record is gone, what was done to it is not."""
    record_id = put(store, state)
    assert settle(tmp_path, "forget", record_id, "--yes").exit_code == 0
    assert store.perform(Read(record_id)) is None
    said = shown_of(tmp_path, record_id)
    assert (said["state"], said["history"][0]["action"], said["history"][0]["took_effect"]) == (None, "forget", True)
    assert "there is no record any more" in command("keys", "show", record_id.hex(), "--store", url_of(tmp_path)).stdout
    again = settle(tmp_path, "forget", record_id, "--yes")
    assert (again.exit_code, "no such record" in again.stderr) == (1, True)


def test_what_is_in_progress_is_not_forgotten(store, tmp_path):
    """Its owner would go on without a record."""
    result = settle(tmp_path, "forget", put(store, State.IN_PROGRESS), "--yes")
    assert (result.exit_code, "resolve or release it" in result.stderr) == (1, True)


def test_an_age():
    """The largest unit of which there are two."""
    assert [shown.age(ms) for ms in (-5, 0, 1_999, 119_000, 120_000, 7_199_000, 7_200_000, 3 * DAY_MS)] == [
        "0 s", "0 s", "1 s", "119 s", "2 min", "119 min", "2 h", "3 d",
    ]  # fmt: skip


def test_in_doubt_has_an_exit_code_of_its_own(store, tmp_path, monkeypatch):
    """Inconclusive is neither well nor wrong: 4."""

    def fail(*_):
        raise keys.InDoubt

    monkeypatch.setattr(keys, "rule_out", fail)
    assert settle(tmp_path, "resolve", put(store, State.UNKNOWN), "--not-done").exit_code == 4
