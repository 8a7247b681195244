"""Contents on their way in, in memory or spooled, and on their way out, piece by piece."""

from __future__ import annotations

import gc
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import retrysafe.server.body
from retrysafe import Policy
from retrysafe.model import State
from retrysafe.protocol.effects import Fate
from retrysafe.server.body import Spool, SpooledBody
from retrysafe.server.capture import Capture
from retrysafe.stores.memory import MemoryStore
from tests.doors.connections import Connection, ask, protected
from tests.doors.handlers import Shop, piece, sending, start
from tests.drive.harness import eventually, in_loop, states

PIECES = st.lists(st.binary(max_size=12), max_size=8)


@pytest.fixture(scope="module")
def _small():
    """Contents go to a file beyond 16 bytes, and are read from it by 8."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrysafe.server.body, "MEMORY_BYTES_MAX", 16)
        patch.setattr(retrysafe.server.body, "CHUNK_BYTES", 8)
        yield


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _spooled(pieces, body_bytes_max=1_000):
    spool = Spool(body_bytes_max)
    for content in pieces:
        spool.add(content)
    return spool


@pytest.mark.usefixtures("_small")
@given(PIECES)
def test_a_content_is_what_arrived(pieces):
    """However it was cut, and wherever it is kept; and it can be read many times, by several at once."""
    content = b"".join(pieces)
    body = _spooled(pieces).body()
    assert (body.size, body.read(), body.read()) == (len(content), content, content)
    assert isinstance(body, SpooledBody) is (len(content) > 16)
    one, other = [], []
    readers = body.chunks(), body.chunks()
    for mine, theirs in zip(*readers, strict=True):
        one.append(mine)
        other.append(theirs)
    assert b"".join(one) == b"".join(other) == content
    assert all(len(chunk) <= 16 for chunk in one)


@pytest.mark.usefixtures("_small")
@given(PIECES, st.integers(0, 40))
def test_a_content_has_a_limit(pieces, body_bytes_max):
    """It is full as soon as one byte too many has arrived, and keeps nothing from then on."""
    spool = _spooled(pieces, body_bytes_max)
    assert spool.full is (sum(map(len, pieces)) > body_bytes_max)
    assert not spool.full or not spool._pieces


@pytest.mark.usefixtures("_small")
@given(PIECES, st.binary(max_size=12))
def test_it_is_known_beforehand_what_writes_to_a_file(pieces, content):
    """So that a loop need not wait for a disk."""
    spool = _spooled(pieces)
    assert spool.writes(content) is (sum(map(len, pieces)) + len(content) > 16)


@pytest.mark.usefixtures("_small")
def test_a_spooled_content_ends_with_its_object():
    """Its file has no name and no warning: nothing is left of it."""
    body = _spooled([b"x" * 40]).body()
    open_files = _open_files()
    assert body.read() == b"x" * 40
    del body
    gc.collect()
    assert _open_files() == open_files - 1


@pytest.mark.usefixtures("_small")
@in_loop
async def test_a_handler_gets_its_content_in_pieces():
    """What was spooled is handed over from the file, complete, and the last piece says that it is the last."""
    shop = Shop()
    assert (await ask(protected(shop), body=[b"0123456789", b"abcdefghij", b"", b"XYZ"])).status == 201
    assert shop.contents == [b"0123456789abcdefghijXYZ"]


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("sent", [0, 1, 2])
@in_loop
async def test_a_client_that_leaves_in_mid_upload(sent):
    """Nothing runs, nothing is stored, nobody is answered."""
    shop, store = Shop(), MemoryStore()
    connection = Connection(body=[b"0123456789"] * 3)
    arrived = [connection.incoming.get_nowait() for _ in range(3)][:sent]
    for message in arrived:
        connection.incoming.put_nowait(message)
    connection.leave()
    answer = await connection.run(protected(shop, store))
    assert (shop.effects, states(store), answer.status, connection.error) == (0, [], 0, None)


@pytest.mark.parametrize("declared", [True, False])
@in_loop
async def test_a_content_that_is_too_large(declared):
    """413 before any claim; of a content that says how large it is, nothing is read."""
    shop, store = Shop(), MemoryStore()
    door = protected(shop, store, policy=Policy(request_bytes_max=20))
    headers = [(b"content-length", b"30")] if declared else []
    connection = Connection(body=[b"0123456789"] * 3, headers=headers)
    answer = await connection.run(door)
    assert (answer.status, answer.code, shop.effects, states(store)) == (413, "body-too-large", 0, [])
    assert connection.incoming.qsize() == (3 if declared else 0)
    assert (await ask(door, body=[b"0123456789"] * 2)).status == 201


# --- on their way out -----------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=6), min_size=1, max_size=6), st.booleans(), st.booleans(), st.integers(0, 30))
def test_a_response_goes_by_unchanged(pieces, sized, closing, body_bytes_max):
    """Every message comes out as it went in, in order; what completes the response is the last to be let out."""
    content = b"".join(pieces)
    headers = [(b"Content-Length", b"%d" % len(content))] if sized else []
    messages = [start(200, headers)]
    messages += [piece(part, more=closing or number < len(pieces)) for number, part in enumerate(pieces, 1)]
    messages += [piece()] if closing else []
    capture = Capture(body_bytes_max, frozenset())
    capture.start(messages[0])
    let_out, seen = [], 0
    for message in messages[1:]:
        seen += len(message["body"])
        complete = capture.piece(message)
        assert complete is (not message["more_body"] or (sized and seen == len(content)))
        if complete:
            break
        let_out += capture.release()
    assert capture.held[-1] is message
    answered = capture.answered(Fate.RAN)
    let_out += capture.release()
    assert let_out == messages[: len(let_out)]
    assert (answered.size, answered.whole) == (len(content), len(content) <= body_bytes_max)
    assert answered.response.body == (content if answered.whole else b"")
    assert answered.digest == (b"" if answered.whole else hashlib.sha256(content).digest())


@in_loop
async def test_a_handler_cannot_forge_what_is_ours():
    """The marker of a replay and the status of the door are taken out of a handler's answer."""
    headers = [(b"Idempotent-Replayed", b"true"), (b"idempotency-status", b"stored"), (b"x-kept", b"yes")]
    door = protected(sending(start(headers=headers), piece(b"ok")))
    first, second = await ask(door), await ask(door)
    assert (first.values("idempotent-replayed"), first.values("idempotency-status")) == ([], [])
    assert (second.values("idempotent-replayed"), second.values("x-kept")) == (["true"], ["yes"])


@in_loop
async def test_shortcuts_past_the_door_are_hidden():
    """The handler cannot answer in ways that the door does not see; the other extensions are there."""
    seen = []

    async def application(connection, receive, send):
        seen.append(dict(connection["extensions"]))
        await sending(start(), piece())(connection, receive, send)

    extensions = {"http.response.pathsend": {}, "http.response.zerocopysend": {}, "http.response.trailers": {},
                  "http.response.push": {}, "http.response.early_hint": {}, "tls": {"x": 1}}  # fmt: skip
    connection = Connection(extensions=dict(extensions))
    await connection.run(protected(application))
    assert seen == [{"http.response.early_hint": {}, "tls": {"x": 1}}]
    assert connection.scope["extensions"] == extensions


@in_loop
async def test_messages_that_are_no_content_pass():
    """A hint before the response goes out at once, and is no part of the record."""
    hint = {"type": "http.response.early_hint", "links": [b"</a>"]}
    door = protected(sending(hint, start(), piece(b"ok")))
    first, second = Connection(), Connection()
    await first.run(door)
    assert (first.messages[0], first.answer.body) == (hint, b"ok")
    await second.run(door)
    assert (len(second.messages), second.answer.replayed) == (2, True)


@in_loop
async def test_an_answer_beyond_the_limit_is_a_receipt():
    """The first client gets it whole; a retry gets 409, or a receipt where the route says so; nothing runs again."""
    policies = {"POST /refused": Policy(response_bytes_max=4),
                "POST /receipts": Policy(response_bytes_max=4, on_receipt="receipt")}  # fmt: skip
    store = MemoryStore()
    door = protected(sending(start(headers=[(b"location", b"/7")]), piece(b"12345")), store, routes=policies)
    assert ((await ask(door, "POST /refused")).body, (await ask(door, "POST /receipts", key="k-2")).body) == (
        b"12345",
        b"12345",
    )
    assert (await ask(door, "POST /refused")).code == "replay-unavailable"
    receipt = await ask(door, "POST /receipts", key="k-2")
    assert (receipt.status, receipt.replayed, receipt.values("location")) == (201, True, ["/7"])
    assert states(store) == [State.COMPLETED] * 2


@pytest.mark.usefixtures("_small")
@in_loop
async def test_a_spooled_content_does_not_outlive_its_request():
    """Its file is closed with the answer, and does not wait for the garbage collector."""
    door = protected(Shop())
    await ask(door, key="k")
    gc.collect()
    gc.disable()
    try:
        open_files = _open_files()
        for number in range(5):
            assert (await ask(door, key=f"k-{number}", body=[b"0123456789"] * 3)).status == 201
            assert (await ask(door, key=f"k-{number}", body=[b"0123456789"] * 3)).replayed
        await eventually(lambda: _open_files() == open_files)
    finally:
        gc.enable()
