"""What is kept of an answer, by the policy of its route: all, all but what is named, or nothing."""

from __future__ import annotations

import json

import pytest

from retrysafe import Policy
from tests.doors.connections import ask, protected
from tests.doors.handlers import content_of, piece, start
from tests.drive.harness import in_loop, records

SECRET_ANSWER = b'{"id": 7, "api_key": "sk-5353", "nested": {"otp": 123456}}'
JSON = [(b"content-type", b"application/json"), (b"location", b"/keys/7")]


def minting(headers=JSON, body=SECRET_ANSWER):
    """Hands out a secret, in two pieces."""

    async def handler(_connection, receive, send):
        await content_of(receive)
        await send(start(201, headers))
        await send(piece(body[:20], more=True))
        await send(piece(body[20:]))

    return handler


async def twice(policy, **answer):
    """The first answer, a retry's, and what the store holds of it."""
    door = protected(minting(**answer), policy=policy)
    first, second = await ask(door), await ask(door)
    (record,) = records(door._store)
    return first, second, record.response


@in_loop
async def test_the_default_keeps_all():
    """And a replay is the same bytes."""
    first, second, stored = await twice(Policy())
    assert first.body == second.body == SECRET_ANSWER
    assert b"sk-5353" in stored


@in_loop
async def test_redacted():
    """The first client gets its secret, the record does not, and the replay says that it is not the same."""
    first, second, stored = await twice(Policy(store_body="redacted", store_body_redact=("/api_key", "/nested/otp")))
    assert (first.body, first.values("idempotency-status")) == (SECRET_ANSWER, [])
    assert b"sk-5353" not in stored
    assert b"123456" not in stored
    assert second.body == b'{"id": 7, "api_key": null, "nested": {"otp": null}}'
    assert (second.status, second.replayed, second.values("idempotency-status")) == (201, True, ["redacted"])
    assert second.values("content-length") == [str(len(second.body))]


@pytest.mark.parametrize("policy", [
    Policy(store_body="none"),
    Policy(store_body="redacted", store_body_redact=("/api_key",)),
])  # fmt: skip
def test_nothing_is_kept(policy):
    """A receipt, where nothing is to be kept, and where what is to be left out cannot be found: not run again."""

    @in_loop
    async def test():
        headers = JSON if policy.store_body == "none" else [(b"content-type", b"text/plain"), JSON[1]]
        first, second, stored = await twice(policy, headers=headers)
        assert first.body == SECRET_ANSWER
        assert b"sk-5353" not in stored
        assert (second.status, second.code) == (409, "replay-unavailable")
        assert json.loads(second.body)["location"] == "/keys/7"

    test()


@in_loop
async def test_a_receipt_may_be_the_answer():
    """Where the route says so, a retry learns that it was done: status, length, and where; no digest of a secret."""
    _, second, _ = await twice(Policy(store_body="none", on_receipt="receipt"))
    assert (second.status, second.replayed, second.values("location")) == (201, True, ["/keys/7"])
    assert json.loads(second.body) == {"receipt": True, "status": 201, "content_bytes": len(SECRET_ANSWER)}
