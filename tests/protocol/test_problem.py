"""Problem documents."""

import json

import pytest

from retrysafe.protocol.problem import KINDS, Problem, retry_after

URL = "https://problems.example/"


@pytest.mark.parametrize("code", KINDS)
def test_a_problem_is_a_document_of_rfc_9457(code):
    """Type, title, status, detail, instance; a code and whether to retry; and no cache (R76-R78)."""
    response = Problem(code, "What was seen.").response(URL, "urn:x")
    document = json.loads(response.body)
    assert response.status == document["status"] == KINDS[code].status
    assert document["type"] == URL + code
    assert document["code"] == code
    assert document["retryable"] is KINDS[code].retryable
    assert (document["detail"], document["instance"]) == ("What was seen.", "urn:x")
    assert response.value(b"content-type") == b"application/problem+json"
    assert response.value(b"content-length") == b"%d" % len(response.body)
    assert response.value(b"cache-control") == b"no-store"
    assert response.value(b"link") == b'<%s>; rel="describedby"' % document["type"].encode()


def test_members_and_fields_are_added():
    """What a type has besides."""
    problem = Problem("in-progress", "x", members=(("retry_after", 3),), headers=retry_after(3))
    response = problem.response(URL, "urn:x")
    assert json.loads(response.body)["retry_after"] == 3
    assert response.value(b"retry-after") == b"3"
