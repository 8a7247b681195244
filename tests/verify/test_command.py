"""`retrysafe verify` from the command line: what it says, what it writes, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from contextlib import closing, suppress

import pytest
import trustme

from retrysafe.lab.mutants.answers import Unprotected
from retrysafe.lab.mutants.correct import Server
from retrysafe.lab.mutants.http import Response, document
from retrysafe.lab.mutants.reuse import BytesAreCompared
from retrysafe.lab.mutants.shop import Shop
from retrysafe.verify.cases import CATALOGUE
from tests.gateway.processes import environment
from tests.verify.serving import ALICE, CONTENT, COUNTED, PATIENCE_S, serving, verify


@pytest.fixture(scope="module")
def good():
    """The address of a server that does everything right."""
    with serving(Server()) as address:
        yield address


@pytest.fixture(scope="module")
def bad():
    """The address of a server that takes keys and does nothing with them."""
    with serving(Unprotected()) as address:
        yield address


def test_clean(good):
    """0, when nothing was found; each case has its line."""
    done = verify("POST", f"{good}/orders", "--json", CONTENT, *ALICE, *COUNTED, "--only", "REP-01", "--only", "FPR-01")
    assert done.exit_code == 0, done.output
    assert "pass          REP-01" in done.output
    assert "2 passed" in done.output


def test_findings(bad):
    """1, with what was sent, what came, what was expected, why it matters, and a line of curl."""
    done = verify("POST", f"{bad}/orders", "--json", CONTENT, *ALICE, *COUNTED, "--only", "REP-01")
    assert done.exit_code == 1
    for words in ("FAIL  REP-01", "why it matters", "draft 2.6", "1 effect", "2 effects, after 2 x 201", "curl -i "):
        assert words in done.output
    assert "Authorization: $AUTHORIZATION" in done.output
    assert "Bearer alice" not in done.output


def test_curl_line(bad, tmp_path):
    """A finding shows the request as a line of curl."""
    report = _json_report(bad, "REP-01", folder=tmp_path)
    step = report["cases"][0]["steps"][0]
    assert step["sent"]["url"] == f"{bad}/orders"
    assert step["curl"].startswith("curl -i -H 'Content-Type: application/json'")
    assert "--data-binary" in step["curl"]


def test_usage():
    """2, for what cannot be meant, with every fault."""
    for arguments in (
        (),
        ("POST", "not-an-address"),
        ("POST", "http://127.0.0.1:1/x", "--only", "NO-99"),
        ("POST", "http://127.0.0.1:1/x", "--profile", "nobody"),
        ("POST", "http://127.0.0.1:1/x", "--effects", "guess"),
        ("POST", "http://127.0.0.1:1/x", "--with", "sloow=POST /x"),
        ("POST", "http://127.0.0.1:1/x", "--with", "slow"),
        ("POST", "http://127.0.0.1:1/x", "--account", "no colon"),
        ("POST", "http://127.0.0.1:1/x", "--json", '{"reference": 1}', *COUNTED),
        ("POST", "http://127.0.0.1:1/x", "--form", "reference=1", *COUNTED),
        ("POST", "http://127.0.0.1:1/x", "--form", "two words"),
        ("POST", "http://127.0.0.1:1/x", "--form", "a=1", "--json", "{}"),
        ("POST", "http://127.0.0.1:1/x", "--form", '{"token":"abc=="}'),
        ("POST", "http://127.0.0.1:1/x", "--form", "a=1", "--header", "Content-Type: application/json"),
    ):
        assert verify(*arguments).exit_code == 2, arguments


def test_strangers_are_left_alone():
    """2, for a host that is not this machine, unless its owner says that it is."""
    done = verify("POST", "http://api.example.com/orders")
    assert done.exit_code == 2
    assert "--i-own-this-api" in done.output
    by_operation = verify("POST", "http://127.0.0.1:1/x", "--with", "slow=POST http://api.example.com/slow")
    assert by_operation.exit_code == 2


def test_unreachable():
    """3, when nobody is there."""
    done = verify("POST", "http://127.0.0.1:1/orders")
    assert done.exit_code == 3
    assert "nothing answers" in done.output


def test_nothing_is_a_pass(good):
    """4, when no case that binds reached a verdict: skipped and inconclusive are no passes."""
    skipped = verify("POST", f"{good}/orders", "--json", CONTENT, *ALICE, "--only", "SEC-01")
    assert skipped.exit_code == 4
    assert "--other-account" in skipped.output
    refused = verify("POST", f"{good}/orders", "--json", '{"no": "{{unique}}"}', *ALICE, *COUNTED, "--only", "REP-01")
    assert refused.exit_code == 4
    assert "is the operation right?" in refused.output


def test_only_what_should_be(good):
    """0, when nothing that binds was asked for, and something else passed."""
    done = verify("POST", f"{good}/orders", "--json", CONTENT, *ALICE, *COUNTED, "--only", "FPR-03")
    assert done.exit_code == 0, done.output


def test_strict():
    """What should be and is not is a finding with `--strict` alone."""
    with serving(BytesAreCompared()) as address:
        arguments = (
            "POST",
            f"{address}/orders",
            "--json",
            CONTENT,
            *ALICE,
            *COUNTED,
            "--only",
            "FPR-03",
            "--only",
            "REP-01",
        )
        assert verify(*arguments).exit_code == 0
        assert verify(*arguments, "--strict").exit_code == 1


def test_bound(good):
    """No more requests are sent than `--effects-max` allows; what is left is skipped."""
    done = verify(
        "POST", f"{good}/orders", "--json", CONTENT, *ALICE, *COUNTED, "--only", "REP-20", "--effects-max", "5"
    )
    assert done.exit_code == 4
    assert "the bound of 5 requests is reached" in done.output
    assert "; 5 requests" in done.output


def started(*arguments, **streams):
    """`retrysafe verify` in a process of its own."""
    variables = environment(TERM="xterm")
    return subprocess.Popen([sys.executable, "-m", "retrysafe", "verify", *arguments], env=variables, **streams)


def test_interrupted():
    """130 for Ctrl-C in the middle, and not 1, which would be findings."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(PATIENCE_S)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/orders"
        with started("POST", url, "--json", CONTENT, *ALICE, stderr=subprocess.PIPE, text=True) as process:
            try:
                with silent.accept()[0]:
                    process.send_signal(signal.SIGINT)
                    _, said = process.communicate(timeout=PATIENCE_S)
            finally:
                process.kill()
    assert (process.returncode, said) == (130, "retrysafe: interrupted\n")


def test_on_a_terminal_results_stand_above_the_bar(good):
    """No result begins on the line of the bar."""
    ours, theirs = os.openpty()
    arguments = ("--json", CONTENT, *ALICE, *COUNTED, "--only", "REP-01", "--only", "SEC-01")
    with started("POST", f"{good}/orders", *arguments, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        screen = b""
        with suppress(OSError), closing(os.fdopen(ours, "rb", buffering=0)) as terminal:  # its end is an error, EIO
            while some := terminal.read(65_536):
                screen += some
        assert process.wait(PATIENCE_S) == 0
    plain = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", screen)
    assert b"0/2" in plain
    assert re.search(rb"[\r\n]pass +REP-01", plain)
    assert not re.search(rb"/2 *(pass|skip)", plain)


def test_list():
    """`--list` shows every case and sends nothing."""
    done = verify("--list")
    assert done.exit_code == 0
    assert all(case.id in done.output for case in CATALOGUE)
    assert "REP-01" not in verify("--list", "--only", "SYN").output


def _json_report(address, *ids, folder):
    path = folder / "report.json"
    only = [argument for id_ in ids for argument in ("--only", id_)]
    done = verify("POST", f"{address}/orders", "--json", CONTENT, *ALICE, *COUNTED, *only, "--json-report", str(path))
    report = json.loads(path.read_text())
    assert (f"retrysafe verify --replay {path}" in done.output) is bool(report["summary"]["fail"])
    return report


def test_replay(bad, good, tmp_path):
    """`--replay` runs what had findings, and says whether it is fixed."""
    report = _json_report(bad, "REP-01", "SYN-01", folder=tmp_path)
    assert [case["verdict"] for case in report["cases"]] == ["pass", "fail"]
    path = tmp_path / "report.json"
    still = verify("--replay", str(path), *ALICE, *COUNTED)
    assert still.exit_code == 1
    assert "still failing  REP-01" in still.output
    assert "SYN-01" not in still.output
    path.write_text(path.read_text().replace(bad, good))
    fixed = verify("--replay", str(path), *ALICE, *COUNTED)
    assert fixed.exit_code == 0
    assert "fixed  REP-01" in fixed.output


def test_replay_needs_what_a_report_does_not_have(bad, tmp_path):
    """A report has no credentials, so that they are asked for; and one without findings is refused."""
    _json_report(bad, "REP-01", folder=tmp_path)
    done = verify("--replay", str(tmp_path / "report.json"), *COUNTED)
    assert done.exit_code == 2
    assert "--account" in done.output
    _json_report(bad, "SYN-01", folder=tmp_path)
    assert verify("--replay", str(tmp_path / "report.json"), *ALICE).exit_code == 2


def test_reports(bad, tmp_path):
    """Every form of the report has the finding, and none has a credential."""
    files = {name: tmp_path / name for name in ("html", "junit", "sarif", "json")}
    options = [argument for name, path in files.items() for argument in (f"--{name}-report", str(path))]
    badge = tmp_path / "badge.svg"
    only = ("--only", "REP-01", "--only", "SYN-01", "--only", "SEC-01")
    verify("POST", f"{bad}/orders", "--json", CONTENT, *ALICE, *COUNTED, *only, *options, "--badge", str(badge))
    texts = {name: path.read_text() for name, path in files.items()}
    assert not [name for name, text in texts.items() if "Bearer alice" in text]
    assert "REP-01" in texts["html"]
    assert "http-equiv" in texts["html"]
    assert "<script" not in texts["html"]
    suite = ET.fromstring(texts["junit"])
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "1", "1")
    (result,) = json.loads(texts["sarif"])["runs"][0]["results"]
    assert (result["ruleId"], result["level"]) == ("REP-01", "error")
    assert json.loads(texts["json"])["summary"] == {"pass": 1, "fail": 1, "warn": 0, "skip": 1, "inconclusive": 0}
    assert "1 of 2" in badge.read_text()


def test_a_place_without_a_folder_is_told_before_anything_is_sent(bad, tmp_path):
    """2, and not after some hundreds of orders."""
    done = verify(
        "POST",
        f"{bad}/orders",
        "--json",
        CONTENT,
        *ALICE,
        "--json-report",
        f"{tmp_path}/no/r.json",
        "--badge",
        f"{tmp_path}",
    )
    assert done.exit_code == 2
    assert f"--json-report: there is no folder {tmp_path}/no" in done.output
    assert f"--badge: {tmp_path} is a folder" in done.output
    assert "run " not in done.output


def test_openapi(good):
    """An operation out of an OpenAPI document, with content that its schema allows, and the document's own cases."""
    source = ("--openapi", f"{good}/openapi.json", "--operation", "placeOrder")
    done = verify(*source, *ALICE, *COUNTED, "--only", "REP-01", "--only", "DOC", "--only", "SYN-04")
    assert done.exit_code == 0, done.output
    for id_ in ("REP-01", "DOC-01", "DOC-03", "SYN-04"):
        assert f"pass          {id_}" in done.output
    assert verify("--openapi", f"{good}/openapi.json", "--operation", "nothing").exit_code == 2


def test_suite(good, tmp_path, monkeypatch):
    """A suite says all of it in a file; variables of the environment keep credentials out of it."""
    suite = tmp_path / "verify.toml"
    suite.write_text(f"""
operation = "POST {good}/orders"
json = '{CONTENT}'
account = ["Authorization: Bearer ${{WHO}}"]
effects = "same $.id"
profile = "retrysafe"
[with]
slow = 'POST /orders?delay=600 {CONTENT}'
""")
    assert tomllib.loads(suite.read_text())
    arguments = ("--suite", str(suite), "--only", "CON-02", "--only", "CON-04")
    assert verify(*arguments).exit_code == 2
    monkeypatch.setenv("WHO", "alice")
    done = verify(*arguments)
    assert done.exit_code == 0, done.output
    suite.write_text("colour = 1\n")
    assert verify("--suite", str(suite)).exit_code == 2


def test_the_content_is_one(good, tmp_path):
    """What is given nearer takes the place of what is given further away, whatever its kind."""
    suite = tmp_path / "verify.toml"
    suite.write_text(f'operation = "POST {good}/orders"\nform = "reference={{{{unique}}}}"\neffects = "same $.id"\n')
    asked = ("--suite", str(suite), *ALICE, "--only", "REP-01")
    assert verify(*asked).exit_code == 4  # the shop takes no forms
    assert verify(*asked, "--json", CONTENT).exit_code == 0


def test_an_operation_without_content_is_not_changed(good):
    """A case about other content, of an operation that has none, is skipped, and the others are run."""
    given = ("--with", "slow=POST /orders?delay=300", "--only", "CON-05", "--only", "REP-01")
    done = verify("POST", f"{good}/orders", "--json", CONTENT, *ALICE, *COUNTED, *given)
    assert done.exit_code == 0, done.output
    assert "pass          REP-01" in done.output
    assert "no content with fields" in done.output


def test_environment(good, monkeypatch):
    """Options may stand in the environment, several on lines of their own."""
    monkeypatch.setenv("RETRYSAFE_ACCOUNT", "Authorization: Bearer alice\nX-Other: 1")
    monkeypatch.setenv("RETRYSAFE_EFFECTS", "same $.id")
    done = verify("POST", f"{good}/orders", "--json", CONTENT, "--only", "REP-01")
    assert done.exit_code == 0, done.output


def test_tls(tmp_path, monkeypatch):
    """Over TLS it verifies the certificate; also where its own proxy stands in between."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    files = {name: str(tmp_path / name) for name in ("authority", "certificate", "key")}
    authority.cert_pem.write_to_path(files["authority"])
    certificate.cert_chain_pems[0].write_to_path(files["certificate"])
    certificate.private_key_pem.write_to_path(files["key"])
    with serving(Server(), tls=(files["certificate"], files["key"])) as address:
        only = ("--only", "REP-01", "--only", "REP-06", "--only", "REP-07")
        arguments = ("POST", f"{address}/orders", "--json", CONTENT, *ALICE, *COUNTED, *only)
        assert verify(*arguments).exit_code == 3
        monkeypatch.setenv("SSL_CERT_FILE", files["authority"])
        done = verify(*arguments)
    assert done.exit_code == 0, done.output
    assert "3 passed" in done.output


def test_a_redirect_is_no_answer():
    """An address that leads somewhere else is told, and nothing is judged."""

    class Elsewhere(Server):
        async def respond(self, request):
            return Response(301, (("location", "https://elsewhere.example/orders"),))

    with serving(Elsewhere()) as address:
        done = verify("POST", f"{address}/orders", "--json", CONTENT, "--only", "REP-01", "--effects", "same $.id")
    assert done.exit_code == 4
    assert "https://elsewhere.example/orders" in done.output


@pytest.mark.parametrize("kind", ["cmd", "sql", "metric", "total"])
def test_counters(kind, tmp_path):
    """Effects are counted by a command, in a database, by a metric, and by a total of which only the growth counts."""
    with serving(_Counted(tmp_path)) as address:
        effects = {
            "cmd": f"cmd grep -c {{{{unique}}}} {tmp_path / 'ledger'} || true",
            "sql": f"sql sqlite:///{tmp_path / 'shop.db'} SELECT count(*) FROM done WHERE reference = '{{{{unique}}}}'",
            "metric": f"metric {address}/metrics shop_orders_total",
            "total": "GET /total $.total",
        }[kind]
        only = ("--only", "REP-01", "--only", "SYN-05")
        done = verify("POST", f"{address}/orders", "--json", CONTENT, *ALICE, "--effects", effects, *only)
        assert done.exit_code == 0, done.output


class _CountedShop(Shop):
    """A shop whose effects can be counted in several ways."""

    def __init__(self, place):
        super().__init__()
        self.place = place
        (place / "ledger").touch()
        self._execute("CREATE TABLE done (reference TEXT)")

    def _execute(self, *statement):
        with closing(sqlite3.connect(self.place / "shop.db", isolation_level=None)) as database:
            database.execute(*statement)

    def done(self, reference):
        """Note an effect in every way."""
        with (self.place / "ledger").open("a") as ledger:
            ledger.write(f"{reference}\n")
        self._execute("INSERT INTO done VALUES (?)", (reference,))
        return super().done(reference)


class _Counted(Server):
    """The server without a defect, before such a shop."""

    def __init__(self, place):
        super().__init__()
        self.shop = _CountedShop(place)

    def aside(self, request):
        """Totals of all effects."""
        total = sum(self.shop.effects.values())
        if request.path == "/metrics":
            text = f'# TYPE shop_orders_total counter\nshop_orders_total{{kind="a"}} {total}.0\n'
            return Response(200, (("content-type", "text/plain"),), text.encode())
        return document(200, {"total": total}) if request.path == "/total" else super().aside(request)
