"""What of a response may be sent before its record."""

import hashlib

import pytest

from retrysafe.protocol.effects import Fate
from retrysafe.server.capture import Capture

WITHHELD = frozenset({b"idempotent-replayed"})


def start(*headers, status=201):
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(content=b"", *, more=False):
    return {"type": "http.response.body", "body": content, "more_body": more}


def captured(*messages, bytes_max=100):
    """Feed the messages; which of them complete the response, and what went out before."""
    capture = Capture(bytes_max, WITHHELD)
    out, complete = [], []
    capture.start(messages[0])
    for message in messages[1:]:
        complete.append(capture.piece(message))
        if not complete[-1]:
            out += capture.release()
    return capture, out, complete


def test_a_response_of_one_piece_waits_whole():
    """Its start too: until the record is there nothing was sent that a retry could contradict."""
    messages = [start(), body(b"made")]
    capture, out, complete = captured(*messages)
    assert (out, complete) == ([], [True])
    assert capture.release() == messages


def test_pieces_go_out_as_they_come_but_for_the_last():
    """A stream passes through; its end waits."""
    messages = [start(), body(b"a", more=True), body(b"b", more=True), body(b"c")]
    capture, out, complete = captured(*messages)
    assert (out, complete) == (messages[:3], [False, False, True])
    assert capture.release() == messages[3:]


def test_the_piece_that_reaches_the_length_is_the_last():
    """A client has the whole answer with it, whatever empty message follows."""
    messages = [start((b"Content-Length", b"2")), body(b"a", more=True), body(b"b", more=True)]
    _, out, complete = captured(*messages)
    assert (out, complete) == (messages[:2], [False, True])


@pytest.mark.parametrize(("fields", "status", "kept"), [(((b"Content-Length", b"2"),), 201, b"ab"), ((), 204, b"")])
def test_a_piece_that_goes_past_the_length_waits_too(fields, status, kept):
    """Servers send what the length allows and drop the rest: a client would have a whole answer, and no record."""
    capture, out, complete = captured(start(*fields, status=status), body(b"abc", more=True))
    assert (out, complete) == ([], [True])
    assert capture.answered(Fate.RAN).response.body == kept


def test_what_was_answered_is_kept_whole():
    """Status, fields and content."""
    capture, _, _ = captured(start((b"x", b"1")), body(b"a", more=True), body(b"b"))
    answered = capture.answered(Fate.RAN)
    assert (answered.response.status, answered.response.headers) == (201, ((b"x", b"1"),))
    assert (answered.response.body, answered.whole, answered.size) == (b"ab", True, 2)


@pytest.mark.parametrize("pieces", [[b"x" * 101], [b"x" * 100, b"y"], [b"x" * 60, b"y" * 60, b"z" * 60]])
def test_what_is_too_large_is_digested_and_let_go(pieces):
    """Memory stays bounded; size and digest remain (R66)."""
    capture, _, _ = captured(start(), *(body(piece, more=True) for piece in pieces), body())
    answered = capture.answered(Fate.RAN)
    content = b"".join(pieces)
    assert (answered.whole, answered.response.body, answered.size) == (False, b"", len(content))
    assert answered.digest == hashlib.sha256(content).digest()


def test_a_content_of_just_the_limit_is_kept():
    """The limit itself is allowed."""
    capture, _, _ = captured(start(), body(b"x" * 100))
    assert capture.answered(Fate.RAN).whole


def test_a_handler_cannot_set_our_marker():
    """It would be taken for a replay (R58)."""
    capture, _, _ = captured(start((b"Idempotent-Replayed", b"true"), (b"x", b"1")), body())
    assert capture.release()[0]["headers"] == [(b"x", b"1")]
