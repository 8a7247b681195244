"""What an OpenAPI document gains."""

from __future__ import annotations

import copy
from typing import Any

from retrysafe import Policy
from retrysafe.protocol.openapi import enriched
from retrysafe.protocol.published import Published

PLAIN: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "Shop", "version": "1"},
    "paths": {
        "/pay": {
            "post": {
                "parameters": [{"name": "idempotency-key", "in": "header"}, {"name": "q", "in": "query"}],
                "responses": {
                    "201": {"description": "paid"},
                    "404": {"$ref": "#/components/responses/Missing"},
                    "422": {"description": "not valid", "content": {"application/json": {"schema": {}}}},
                    "503": {"$ref": "#/components/responses/Away"},
                },
            },
            "get": {"responses": {"200": {"description": "all"}}},
        },
        "/refund": {"post": {"responses": {}}},
        "/short": {"post": {"responses": {}}},
        "/search": {"post": {"responses": {"200": {"description": "found"}}}},
    },
}
POLICIES = {
    "/pay": Policy(required=True, lifetime="7d"),
    "/refund": Policy(required=True, lifetime="7d"),
    "/short": Policy(lifetime="1h", tombstone="0s", key_syntax="bare"),
}


def made():
    """The document of a shop."""
    published = Published("user", {"*": Policy()})
    return enriched(PLAIN, published, lambda _, path: POLICIES.get(path))


def test_the_given_document_stays_as_it_is():
    """A framework keeps it."""
    before = copy.deepcopy(PLAIN)
    made()
    assert before == PLAIN


def test_only_enrolled_operations_gain():
    """Another method and a route that is taken out say nothing."""
    document = made()
    assert document["paths"]["/search"] == PLAIN["paths"]["/search"]
    assert document["paths"]["/pay"]["get"] == PLAIN["paths"]["/pay"]["get"]


def test_the_parameter_is_shared_and_there_once():
    """Routes that agree share it, another policy has its own, and what a framework said of it goes."""
    document = made()
    parameters = document["components"]["parameters"]
    shared = {"$ref": "#/components/parameters/IdempotencyKey"}
    assert document["paths"]["/pay"]["post"]["parameters"] == [{"name": "q", "in": "query"}, shared]
    assert document["paths"]["/refund"]["post"]["parameters"] == [shared]
    assert document["paths"]["/short"]["post"]["parameters"] == [{"$ref": "#/components/parameters/IdempotencyKey1"}]
    assert parameters["IdempotencyKey"]["required"]
    assert "7 days" in parameters["IdempotencyKey"]["description"]
    assert parameters["IdempotencyKey"]["schema"]["maxLength"] == 257
    assert parameters["IdempotencyKey1"]["schema"]["maxLength"] == 255
    assert "a new operation" in parameters["IdempotencyKey1"]["description"]


def test_responses():
    """Refusals stand beside what the application answers with the same status; its own answers may be replays."""
    responses = made()["paths"]["/pay"]["post"]["responses"]
    assert set(responses) == {"201", "400", "404", "409", "412", "422", "503"}
    assert list(responses["201"]["headers"]) == ["Idempotent-Replayed"]
    assert set(responses["422"]["content"]) == {"application/json", "application/problem+json"}
    assert "Retry-After" in responses["409"]["headers"]
    assert responses["404"] == {"$ref": "#/components/responses/Missing"}
    assert responses["503"] == {"$ref": "#/components/responses/Away"}
    assert "412" not in made()["paths"]["/short"]["post"]["responses"]


def test_until_when_an_answer_is_replayed():
    """Said of responses where the policy asks for it."""
    policy = Policy(expires_header=True)
    document = {"paths": {"/pay": {"post": {"responses": {"201": {"description": "paid"}}}}}}
    made = enriched(document, Published("user", {"*": policy}), lambda *_: policy)
    assert set(made["paths"]["/pay"]["post"]["responses"]["201"]["headers"]) == {
        "Idempotent-Replayed", "Idempotency-Expires",
    }  # fmt: skip


def test_the_extension():
    """`x-idempotency` says what the contract says."""
    said = made()["paths"]["/pay"]["post"]["x-idempotency"]
    assert (said["supported"], said["required"], said["lifetime"]) == (True, True, "PT168H")
