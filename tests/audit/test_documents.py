"""OpenAPI documents: of an API that says what holds, of one that does not, behind a gateway, and pasted."""

from __future__ import annotations

import copy
import json
import sys
import threading
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from typing import Any

import pytest
import yaml

from retrysafe.audit.overlap import in_braces, overlap, sample
from tests.audit.auditing import command, ids, report

KEY = {"name": "Idempotency-Key", "in": "header", "required": True, "schema": {"type": "string"}}
RESPONSES = {str(status): {"description": "x"} for status in (201, 400, 409, 422)}


def write(folder, operation, *, name="api.yaml", path="/charges", **document):
    """A document with one operation by POST; the path to it."""
    file = folder / name
    made = {"openapi": "3.1.0", **document, "paths": {path: {"post": operation, "get": {"responses": {}}}}}
    file.write_text(json.dumps(made) if name.endswith("json") else yaml.safe_dump(made, sort_keys=False), "utf-8")
    return str(file)


CASES = [
    ({"responses": RESPONSES}, "/notes", ["AUD-01 POST /notes"]),
    ({"responses": RESPONSES, "x-idempotency": {"supported": False}}, "/notes", []),
    ({"responses": RESPONSES, "x-idempotency": {"supported": False}}, "/charges", ["AUD-01 POST /charges"]),
    ({"responses": RESPONSES, "parameters": [KEY]}, "/charges", []),
    ({"responses": RESPONSES, "parameters": [{**KEY, "required": False}]}, "/charges", ["AUD-02 POST /charges"]),
    ({"responses": RESPONSES, "parameters": [{**KEY, "name": "X-Idempotency-Key"}]}, "/charges", []),
    ({"responses": {"201": {}}, "parameters": [KEY]}, "/charges", ["AUD-04 POST /charges"]),
    ({"responses": {"201": {}, "4XX": {}}, "parameters": [KEY]}, "/charges", []),
    ({"responses": RESPONSES, "x-idempotency": {"supported": True, "required": True}}, "/x", ["AUD-04 POST /x"]),
    (
        {
            "responses": RESPONSES,
            "parameters": [KEY],
            "x-idempotency": {"supported": True, "required": True, "lifetime": "PT1H"},
        },
        "/charges",
        ["AUD-03 POST /charges"],
    ),
    (
        {
            "responses": {**RESPONSES, "200": {"content": {"text/event-stream": {}}}},
            "parameters": [KEY],
            "x-idempotency": {"supported": True, "required": True, "lifetime": "P7D"},
        },
        "/notes",
        ["AUD-05 POST /notes"],
    ),
    ({"responses": RESPONSES, "x-fern-idempotent": True, "parameters": [KEY]}, "/charges", []),
    ({"responses": RESPONSES, "x-fern-idempotent": True}, "/notes", ["AUD-04 POST /notes"]),
    ({"responses": RESPONSES, "x-retrysafe-ignore": ["AUD-01"]}, "/charges", []),
]


@pytest.mark.parametrize(("operation", "path", "expected"), CASES)
def test_operations(operation, path, expected, tmp_path):
    """What a document says of one operation."""
    assert ids(report(write(tmp_path, operation, path=path))) == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"properties": {"amount": {}, "currency": {}}}, '"amount" and "currency"'),
        ({"$ref": "#/components/schemas/Money"}, '"iban"'),
        ({"allOf": [{"$ref": "#/components/schemas/Money"}]}, '"iban"'),
        ({"properties": {"text": {}}}, ""),
    ],
)
def test_money_in_the_content(content, said, tmp_path):
    """The members of the content say what it is for."""
    components: dict[str, Any] = {"schemas": {"Money": {"properties": {"iban": {}}}}}
    operation = {"responses": RESPONSES, "requestBody": {"content": {"application/json": {"schema": content}}}}
    (found,) = report(write(tmp_path, operation, path="/things", components=components))["findings"]
    assert (said in found["seen"], found["severity"]) == (True, "error" if said else "warning")


def test_clients_that_are_made_from_it(tmp_path):
    """A document that has its clients retry what is not protected, and for longer than it lasts."""
    retries = {"strategy": "backoff", "backoff": {"maxElapsedTime": 172_800_000}}
    (found,) = report(write(tmp_path, {"responses": RESPONSES, "x-speakeasy-retries": retries}, path="/x"))["findings"]
    assert "clients that are made from the document retry it for 2 days" in found["seen"]
    assert found["severity"] == "error"
    promised = {"supported": True, "required": True, "lifetime": "PT24H"}
    operation = {"responses": RESPONSES, "parameters": [KEY], "x-idempotency": promised}
    assert ids(report(write(tmp_path, operation, **{"x-speakeasy-retries": retries}))) == ["AUD-03 POST /charges"]


@pytest.mark.parametrize("name", ["api.json", "api.yaml"])
def test_lines(name, tmp_path, monkeypatch):
    """The line of the operation, for reviews."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, {"responses": {}}, name=name)
    if name == "api.json":
        (tmp_path / name).write_text(json.dumps(json.loads((tmp_path / name).read_text("utf-8")), indent=1), "utf-8")
    (found,) = report(name)["findings"]
    line = (tmp_path / name).read_text("utf-8").splitlines()[found["line"] - 1]
    assert (found["file"], line.strip().strip('": {')) == (name, "post")


def merged(document, part):
    """A document with a part of one put in place of what it has under the same names."""
    made = copy.deepcopy(document)
    for path, item in part["paths"].items():
        made["paths"][path].update(item)
    for kind, items in part["components"].items():
        made.setdefault("components", {}).setdefault(kind, {}).update(items)
    return made


@pytest.mark.parametrize("name", ["api.json", "api.yaml"])
@pytest.mark.parametrize(
    "operation",
    [
        {"responses": {201: {"description": "done"}}},
        {"responses": {"201": {"description": "done"}}, "parameters": [KEY]},
        {"responses": RESPONSES, "x-idempotency": {"supported": False}},
        {"responses": RESPONSES, "parameters": [KEY], "x-idempotency": {"supported": True, "lifetime": "PT1H"}},
    ],
)
def test_pasted(name, operation, tmp_path, monkeypatch):
    """What it has to say, put into the document: nothing is found any more."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, operation, name=name)
    before = report(name, "--retry-window", "48h")
    assert before["findings"]
    read, dump = (json.loads, json.dumps) if name == "api.json" else (yaml.safe_load, yaml.safe_dump)
    (part,) = [read(it["text"]) for it in before["fragments"] if it["put"] == "merge"]
    document = merged(read((tmp_path / name).read_text("utf-8")), part)
    (tmp_path / name).write_text(dump(document), "utf-8")
    assert not ids(report(name, "--retry-window", "48h"))


def test_gateway(tmp_path, monkeypatch):
    """A document of an API behind a gateway: what holds is what the gateway is told, and pasted it holds."""
    monkeypatch.chdir(tmp_path)
    operation = {"responses": RESPONSES, "parameters": [KEY]}
    write(tmp_path, operation, servers=[{"url": "https://api.example/v1"}])
    settings = 'scope = "authorization"\n\n[policy]\nmethods = ["PUT"]\n\n[routes."POST /charges"]\n'
    (tmp_path / "gateway.toml").write_text(settings, "utf-8")
    before = report("api.yaml", "--gateway", "gateway.toml")
    assert ids(before) == ["AUD-01 POST /charges", "AUD-06 scope", "AUD-07 POST /charges"]
    pasted = {it["text"] for it in before["fragments"] if it["put"] == "file"}
    assert pasted == {'[routes."POST /v1/charges"]\nrequired = true\n', 'scope = "header:X-Account-Id"'}
    routes, scope = sorted(pasted)
    (tmp_path / "gateway.toml").write_text(f'{scope}\n\n[policy]\nmethods = ["PUT"]\n\n{routes}', "utf-8")
    assert not ids(report("api.yaml", "--gateway", "gateway.toml"))
    (tmp_path / "gateway.toml").write_text(f'mode = "observe"\n{scope}\n\n{routes}', "utf-8")
    assert ids(report("api.yaml", "--gateway", "gateway.toml")) == ["AUD-01 POST /charges"]


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder, and writes nothing."""

    def log_message(self, *_):
        pass


def test_behind_an_address(tmp_path):
    """A document that a server has; and an address at which nobody answers."""
    write(tmp_path, {"responses": RESPONSES}, name="api.json")
    with HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        made = report(f"{address}/api.json")
        missing = command(f"{address}/nothing.json")
        server.shutdown()
        thread.join()
    assert (ids(made), made["findings"][0]["file"]) == (["AUD-01 POST /charges"], None)
    assert missing.exit_code == 3
    assert command(f"{address}/api.json").exit_code == 3


@pytest.mark.parametrize(("target", "library"), [("api.yaml", "yaml"), ("http://127.0.0.1:1/api.json", "httpx2")])
def test_a_missing_extra_is_named(target, library, tmp_path, monkeypatch):
    """Without its library, YAML cannot be read, nor an address; a file of JSON can."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, library, None)
    write(tmp_path, {"responses": RESPONSES})
    write(tmp_path, {"responses": RESPONSES}, name="api.json")
    done = command(target)
    assert (done.exit_code, "retrysafe[audit]" in done.stderr) == (2, True)
    (found,) = report("api.json")["findings"]
    assert (found["file"], found["line"]) == ("api.json", None if library == "yaml" else 1)


@pytest.mark.parametrize(
    ("text", "exit_code"),
    [
        ("openapi: 3.1.0", 2),
        ("{", 2),
        ('{"paths": {}}', 4),
        ('{"paths": {"/x": {"get": {}}}}', 4),
        ('{"paths": {"/x": {"post": {"x-idempotency": {"supported": true, "lifetime": "soon"}}}}}', 2),
    ],
)
def test_what_is_no_document(text, exit_code, tmp_path):
    """What cannot be read is told, and a document without anything to look at is not clean."""
    (tmp_path / "api.yaml").write_text(text, "utf-8")
    assert command(str(tmp_path / "api.yaml")).exit_code == exit_code


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("/a", "/a", True),
        ("/a", "/b", False),
        ("/a", "/a/", False),
        ("/a/{x}", "/a/7", True),
        ("/a/{x}", "/a/7/b", False),
        ("/a/<int:x>", "/a/{y}", True),
        ("/a/<path:x>", "/a/b/c", True),
        ("/a/{x:path}", "/a/b/{y}", True),
        ("/a/{x:path}/end", "/a/b/c/end", True),
        ("/a/{x:path}/end", "/a/b/c", False),
        ("/a/{x}.json", "/a/7.json", True),
        ("/a/{x}.json", "/a/7.xml", False),
        ("/a/v{x}", "/a/{y}.json", True),
        ("/a/v{x}", "/a/w{y}", False),
    ],
)
def test_overlap(one, other, expected):
    """Whether two paths with variables have one in common."""
    assert overlap(one, other) is overlap(other, one) is expected


def test_variables():
    """In braces, as the table has them; and gone, in a path that could be asked for."""
    assert in_braces("/a/<int:pk>/<path:rest>/<name>/{id}") == "/a/{pk}/{rest:path}/{name}/{id}"
    assert sample("/a/<int:pk>/{id}") == "/a/1/1"
