"""The parts of the verifier that need no server."""

from __future__ import annotations

import json
import random
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrysafe.errors import ConfigurationError
from retrysafe.formats.openapi import load
from retrysafe.verify import content, openapi, profile, reference
from retrysafe.verify.case import GROUPS
from retrysafe.verify.cases import CATALOGUE
from retrysafe.verify.cases.retention import lifetime_of
from retrysafe.verify.cases.security import chance_of
from retrysafe.verify.message import Answer, Sent
from retrysafe.verify.probe import with_member
from retrysafe.verify.report.curl import body_text, curl
from retrysafe.verify.target import NEEDS, Operation
from retrysafe.verify.template import Path as JsonPath
from retrysafe.verify.template import fill, is_unique
from retrysafe.verify.verdict import Severity, Skipped
from retrysafe.verify.wire import request_bytes

ROOT = Path(__file__).parents[2]
DOCUMENT = {"reference": "r-1", "item": "tea", "quantity": 1, "tags": ["a", "b"]}


def test_the_catalogue_is_in_order():
    """Ids are unique, in groups that are known, with every column filled."""
    assert len({case.id for case in CATALOGUE}) == len(CATALOGUE) == 106
    assert sum(case.core for case in CATALOGUE) == 66
    assert [case.id for case in CATALOGUE] == sorted((case.id for case in CATALOGUE), key=_place)
    for case in CATALOGUE:
        assert case.group in GROUPS
        assert case.sentence.endswith(".")
        assert case.why.endswith(".")
        assert case.source
        assert set(case.needs) <= set(NEEDS)


def _place(id_):
    group, _, number = id_.partition("-")
    return list(GROUPS).index(group), int(number)


def test_the_page_of_cases_is_made_from_them():
    """docs/reference/verify-cases.md is what `python -m retrysafe.verify.reference` prints."""
    assert (ROOT / "docs/reference/verify-cases.md").read_text("utf-8") == reference.page()
    assert f"[{len(CATALOGUE)} cases]" in (ROOT / "docs/how-to/verify.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$", DOCUMENT),
        ("$.quantity", 1),
        ("$.tags[1]", "b"),
        ("$['item']", "tea"),
        ('$["item"]', "tea"),
        ("$.tags[*]", ["a", "b"]),
        ("$.nothing.at.all", None),
        ("$.tags[7]", None),
    ],
)
def test_a_path_finds(path, found):
    """What it leads to, or nothing."""
    assert JsonPath(path).find(DOCUMENT) == found


def test_a_path_counts():
    """A number, the length of a list, digits; and no number is none."""
    assert JsonPath("$.quantity").count(DOCUMENT) == 1
    assert JsonPath("$.tags").count(DOCUMENT) == 2
    assert JsonPath("$[*].a").count([{"a": 1}, {"b": 1}, {"a": 2}]) == 2
    assert JsonPath("$.n").count({"n": "12"}) == 12
    assert JsonPath("$.item").count(DOCUMENT) is None
    assert JsonPath("$.n").count({"n": True}) is None


@pytest.mark.parametrize("text", ["total", "$.", "$[x]", "$..a"])
def test_what_is_no_path_is_refused(text):
    """A text that is no path is the operator's error."""
    with pytest.raises(ConfigurationError):
        JsonPath(text)


def test_a_template_is_filled():
    """The reference stands wherever it is wanted, and nothing in it is special."""
    assert fill("a {{unique}} b {{ unique }}", r"\1") == r"a \1 b \1"
    assert is_unique("{{unique}}")
    assert not is_unique("{{other}}")


@given(st.dictionaries(st.text(), st.one_of(st.text(), st.integers(-9, 9), st.lists(st.integers(-9, 9)))))
def test_the_same_said_differently_is_the_same(document):
    """Reordered and respelled JSON means what it meant."""
    assert json.loads(content.reordered(document)) == document
    assert json.loads(content.respelled(document)) == document


def test_a_change_leaves_the_reference():
    """A number is changed, or else a text that is not the reference; and if there is none, nothing."""
    assert content.changed(DOCUMENT, "r-1") == {**DOCUMENT, "quantity": 2}
    assert content.changed({"reference": "r-1", "item": "tea"}, "r-1") == {"reference": "r-1", "item": "teax"}
    nested = {"reference": "r-1", "lines": [{"sku": "r-1"}, {"sku": "a", "gift": True}]}
    assert content.changed(nested, "r-1") == {
        "reference": "r-1",
        "lines": [{"sku": "r-1"}, {"sku": "ax", "gift": True}],
    }
    with pytest.raises(LookupError):
        content.changed({"reference": "r-1", "lines": [], "gift": True}, "r-1")


def test_a_form_is_content_with_fields():
    """It is read, changed and written as JSON is; what looks like a number counts as one, if it is written as such."""
    sent = Operation("POST", "http://here/{{unique}}", "n=1&zip=01234&tag=a&tag=b+c&r={{unique}}").request("r-1")
    assert sent.form
    assert sent.document == {"n": 1, "zip": "01234", "tag": ["a", "b c"], "r": "r-1"}
    changed = content.changed(sent.document, "r-1")
    assert sent.holding(changed).body == b"n=2&zip=01234&tag=a&tag=b+c&r=r-1"
    assert sent.holding({}).body == b""
    for text in ("", "two words=1", "no-equals", "a=1&&b=2", '{"a":"b=c"}', "oops", "aGVsbG8=", "YQ==", "<a>x=1</a>"):
        assert not Operation("POST", "http://here", text).request("").form
    said = (("Content-Type", content.FORM),)
    assert Operation("POST", "http://here", '{"a": 1}', said).request("").document == {"a": 1}  # as curl sends JSON


def test_a_form_is_written_as_browsers_write_it():
    """And as clients do: words for what is true or absent, names for what is nested, a line for each of several."""
    fields = {"gift": True, "note": None, "to": {"street": "a b"}, "tag": ["x", 2], "r": "{{ unique }}"}
    assert content.form_text(fields) == "gift=true&note=&to[street]=a+b&tag=x&tag=2&r={{unique}}".replace(
        "[", "%5B"
    ).replace("]", "%5D")


@pytest.mark.parametrize(
    ("text", "other"), [("9.99", "9.90"), ("9.94", "9.95"), ("true", "false"), ("false", "true"), ("tea", "teax")]
)
def test_a_text_is_changed_in_kind(text, other):
    """An API that looks at what it is given before it looks at its key would refuse anything else for itself."""
    assert content.changed({"r": "r-1", "price": text}, "r-1") == {"r": "r-1", "price": other}


def test_a_key_in_the_content():
    """It is one more member or field; what has neither cannot carry it."""
    form = Operation("POST", "http://here", "a=1&b=2&a=3").request("")
    assert with_member(form, "key", "k 1").body == b"a=1&b=2&a=3&key=k+1"
    assert (
        json.loads(with_member(Operation("POST", "http://here", '{"a":1}').request(""), "key", "k").body)["key"] == "k"
    )
    coded = replace(form, body=b"\x1f\x8b", headers=(("Content-Encoding", "gzip"),))
    for sent in (coded, Operation("POST", "http://here", "[1]").request(""), replace(form, body=b"x", headers=())):
        with pytest.raises(Skipped):
            with_member(sent, "key", "k")


def test_a_doubled_member_has_both_orders():
    """One text ends with the other value, one with the first."""
    last_other, last_first = content.doubled(DOCUMENT, "r-1")
    assert last_other.count(b'"quantity"') == last_first.count(b'"quantity"') == 2
    assert json.loads(last_other) == {**DOCUMENT, "quantity": 2}
    assert json.loads(last_first) == DOCUMENT


def test_durations():
    """ISO 8601 in seconds."""
    assert content.duration_s("PT24H") == 86_400
    assert content.duration_s("P30D") == 2_592_000
    assert content.duration_s("PT1.5S") == 1.5
    assert content.duration_s("P") is None
    assert content.duration_s("24h") is None


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ('{"x-idempotency": {"lifetime": "PT24H"}}', "PT24H"),
        ("Idempotency keys are kept for 24 hours.", "24 hours"),
        ("Idempotency keys are kept.", None),
        ("Invoices are kept for 10 days." + " " * 3_000 + "Idempotency", None),
    ],
)
def test_a_lifetime_is_found_where_it_is_about_keys(text, stated):
    """A duration near the word counts, one somewhere else does not."""
    assert lifetime_of(text) == stated


def test_chance():
    """Times from one distribution are told from times from two. Replay: the seed is in the test."""
    dice = random.Random(1)
    same = [[dice.gauss(10, 2) for _ in range(100)] for _ in range(2)]
    assert chance_of(*same) > 0.01
    assert chance_of(same[0], [value + 2 for value in same[1]]) < 0.001


def test_every_profile_loads():
    """All that come with the package, and each says what it is."""
    expected = (
        "adyen aip-155 azure-repeatability checkout iceberg ietf paypal retrysafe square stripe-v1 stripe-v2 worldline"
    )
    assert profile.names() == expected.split()
    ids = {case.id for case in CATALOGUE}
    for name in profile.names():
        loaded = profile.load(name)
        assert loaded.title
        assert set(loaded.must) | set(loaded.excused) <= ids


def test_a_profile_of_ones_own(tmp_path):
    """A file extends a profile of the package, and what is wrong with it is told at once."""
    path = tmp_path / "ours.toml"
    path.write_text('extends = "stripe-v1"\nkey_length_max = 40\nretry_after = "MUST"\n')
    loaded = profile.load(str(path))
    assert (loaded.name, loaded.spelling, loaded.key_length_max) == ("ours", "bare", 40)
    assert loaded.retry_after is Severity.MUST
    path.write_text('colour = 1\nspelling = "loud"\nmismatch = 422\n')
    with pytest.raises(ConfigurationError) as wrong:
        profile.load(str(path))
    assert len(wrong.value.faults) == 3
    path.write_text(f'extends = "{path}"\n')
    with pytest.raises(ConfigurationError, match="circle"):
        profile.load(str(path))


def test_every_setting_of_a_profile_can_be_wrong():
    """No setting is taken with a value of another type."""
    for setting in fields(profile.Profile):
        assert profile._faults("x", setting.name, object()), setting.name


def test_a_kind_is_found():
    """The type or the code of an error, in the shapes in which providers write them."""
    for document, kind in (
        ({"type": "https://x/key-reused"}, "https://x/key-reused"),
        ({"type": "about:blank", "code": "a"}, "a"),
        ({"error": {"type": "idempotency_error", "code": "in_use"}}, "idempotency_error in_use"),
        ({"errorCode": "704"}, "704"),
        ({"error": "conflict"}, "conflict"),
        ({"message": "no"}, None),
        (["no"], None),
    ):
        assert Answer(409, body=json.dumps(document).encode()).kind == kind


def test_bytes_go_out_as_they_are():
    """Fields that HTTP forbids are sent, two of a name are two, and trailers come behind chunks."""
    sent = Sent("POST", "http://here:1/a?b=c", (("K", "a\x01\xe9"), ("K", "")), b"12")
    assert request_bytes(sent) == (
        b"POST /a?b=c HTTP/1.1\r\nHost: here:1\r\nK: a\x01\xe9\r\nK: \r\nContent-Length: 2\r\n"
        b"Connection: close\r\n\r\n12"
    )
    trailing = Sent("POST", "http://here/", (), b"12", (("K", "v"),))
    assert request_bytes(trailing).endswith(b"2\r\n12\r\n0\r\nK: v\r\n\r\n")


def test_curl_hides_credentials():
    """A credential stands in the line as a variable; what a shell would take for its own is quoted."""
    sent = Sent("POST", "http://here/", (("X-Key", "s3cret"), ("K", "it's")), b"$(id)", secret=frozenset({"x-key"}))
    line = curl(sent)
    assert "s3cret" not in line
    assert '-H "X-Key: $X_KEY"' in line
    assert "'$(id)'" in line
    assert "@3-BYTES" in curl(Sent("POST", "http://here/", (), b"\x1f\x8b\x00"))
    assert body_text(b"\x1f\x8b\x00") == "(3 bytes)"
    assert body_text(b"a" * 3_000).endswith("a... (3000 bytes)")


def test_a_sample_of_a_schema():
    """Required members, references, enumerations, formats and choices; and it ends."""
    document = {
        "servers": [{"url": "https://api.example/v1"}],
        "paths": {
            "/orders/{id}/refunds": {
                "parameters": [{"name": "Idempotency-Key", "in": "header", "required": True}],
                "post": {
                    "operationId": "refund",
                    "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/s"}}}},
                },
            }
        },
        "s": {
            "type": "object",
            "required": ["note", "kind", "at", "deep", "count", "tags"],
            "properties": {
                "note": {"type": "string"},
                "kind": {"enum": ["full", "part"]},
                "at": {"type": "string", "format": "date"},
                "deep": {"allOf": [{"$ref": "#/s"}]},
                "count": {"type": ["integer", "null"], "minimum": 3},
                "tags": {"type": "array", "items": {"type": "boolean"}},
            },
        },
    }
    operation, required = openapi.operation_of(document, "refund", "file.json")
    assert operation.url == "https://api.example/v1/orders/{{unique}}/refunds"
    assert required
    made = json.loads(operation.body or "")
    assert (made["note"], made["kind"], made["at"], made["count"]) == ("{{unique}}", "full", "2030-01-31", 3)
    assert made["tags"] == [True]
    found = openapi.operation_at(document, "POST", "https://api.example/v1/orders/7/refunds")
    assert found is not None
    assert found["operationId"] == "refund"
    assert openapi.operation_at(document, "POST", "https://api.example/v1/orders") is None


def test_a_sample_of_a_form():
    """An operation that takes no JSON is sent a form, with the reference in its first text."""
    schema = {"type": "object", "required": ["note", "count"], "properties": {"count": {"type": "integer"}}}
    body: dict[str, object] = {"content": {content.FORM: {"schema": schema}}}
    document = {
        "servers": [{"url": "https://api.example"}],
        "paths": {"/orders": {"post": {"operationId": "order", "requestBody": body}}},
    }
    operation, _ = openapi.operation_of(document, "order", "file.json")
    assert operation.body == "note={{unique}}&count=1"
    media: dict[str, object] = {}
    body["content"] = {content.FORM: media}
    for example, text in (("amount=1&r={{unique}}", "amount=1&r={{unique}}"), ({}, None), ([1], None)):
        media["example"] = example
        assert openapi.operation_of(document, "order", "file.json")[0].body == text


def test_a_document_in_yaml(tmp_path):
    """OpenAPI documents are often YAML; what is none is the operator's error."""
    path = tmp_path / "api.yaml"
    path.write_text("paths:\n  /a:\n    post: {operationId: a}\n")
    assert "/a" in load(str(path))["paths"]
    for text in ("[1", "just text", "{}"):
        path.write_text(text)
        with pytest.raises(ConfigurationError):
            load(str(path))
    with pytest.raises(ConfigurationError):
        load(str(tmp_path / "nothing.yaml"))
