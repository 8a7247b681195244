"""`status_path` in the gateway: it answers by itself, only there, and only if it was told to."""

from __future__ import annotations

from tests.gateway.origin import OK, answering
from tests.gateway.serving import before, call, keyed
from tests.gateway.test_streams import asking

PATH = "/idempotency/requests"
ASKING = {"X-Account-Id": "me", "Idempotency-Key": "k-1"}


def test_the_gateway_answers_by_itself():
    """The upstream gets the order and nothing else; another account learns nothing."""
    with before(answering(OK), status_path=PATH) as (server, port):
        assert call(port, "GET", PATH, **ASKING).status == 404
        keyed(port, "k-1")
        answer = call(port, "GET", PATH, **ASKING)
        assert (answer.status, answer.json["state"], answer.json["original_status"]) == (200, "completed", 200)
        assert answer.value("date") is not None
        head = call(port, "HEAD", PATH, **ASKING)
        assert (head.status, head.body, head.value("content-length")) == (200, b"", answer.value("content-length"))
        assert call(port, "GET", PATH, **{**ASKING, "X-Account-Id": "you"}).json["code"] == "key-unknown"
        assert call(port, "POST", PATH, **ASKING).status == 405
        assert [head.split(b" ")[0] for head in server.heads] == [b"POST"]


def test_without_the_setting_the_path_is_the_upstreams():
    """Nothing of it is shadowed."""
    with before(answering(OK)) as (server, port):
        assert call(port, "GET", PATH, **ASKING).body == b"ok"
        assert len(server.heads) == 1


def test_the_upstream_says_who_may_ask():
    """With `authorize`, it is asked as before a replay, and about this path."""
    with before(asking(403), authorize="/may", status_path=PATH) as (server, port):
        answer = call(port, "GET", PATH, Authorization="Bearer t", **ASKING)
        assert (answer.status, answer.json["code"]) == (403, "replay-forbidden")
        (question,) = server.heads
        assert question.startswith(b"GET /may ")
        assert b"\r\nauthorization: bearer t" in question.lower()
        assert b"\r\nx-forwarded-uri: " + PATH.encode() in question.lower()
