"""`retrysafe audit` from the command line: how it ends, what it says and writes, and what silences it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retrysafe.audit import reference
from retrysafe.audit.code import evidence_of
from retrysafe.audit.money import money_in
from retrysafe.audit.rules import RULES
from retrysafe.audit.surface import Evidence, Operation
from tests.audit.auditing import DOOR, Module, command, ids, report

ROOT = Path(__file__).parents[2]
SHOP = f"""
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from retrysafe.starlette import IdempotencyMiddleware


async def charge(request):
    return JSONResponse({{}})


app = Starlette(routes=[Route("/charges", charge, methods=["POST"]), Route("/refunds", charge, methods=["POST"])])
app.add_middleware(IdempotencyMiddleware, {DOOR})


def make():
    return app


def fail():
    raise ZeroDivisionError


number = 7
"""


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """The shop, in the present folder; what to call it."""
    monkeypatch.chdir(tmp_path)
    return f"{Module(tmp_path, SHOP).path.stem}:app"


def test_text(shop):
    """Errors first; each says why, where, what was seen, what to do."""
    done = command(shop)
    assert done.exit_code == 1
    file = shop.replace(":app", ".py")
    assert done.stdout == (
        f"target   {shop} (starlette)\n"
        "checked  2 operations that could do something twice; 2 protected\n\n"
        "error  AUD-02  What moves money requires a key.\n"
        "  why it matters  A client that sends no key pays twice, and nobody notices. (contract R11)\n"
        f"  POST /charges  {file}:9\n"
        '    seen  requires no key, and its path says "charges"\n'
        "    do    require one: a request without it is then answered with 400\n"
        f"  POST /refunds  {file}:9\n"
        '    seen  requires no key, and its path says "refunds"\n'
        "    do    require one: a request without it is then answered with 400\n\n"
        "2 errors; --fix prints what to add\n"
    )


def test_clean(shop):
    """0, and how much was looked at."""
    done = command(shop, "--ignore", "AUD-02")
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "clean; 2 silenced")


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        ((), 2, "there is nothing to audit"),
        (("nothing",), 2, "names nothing to audit"),
        (("{shop}", "--django", "settings"), 2, "not both"),
        (("{shop}", "--retry-window", "soon"), 2, "--retry-window"),
        (("{shop}", "--client", "nobody"), 2, "profile"),
        (("{shop}", "--ignore", "AUD-99"), 2, "AUD-99"),
        (("{shop}", "--write-baseline"), 2, "--baseline FILE"),
        (("{shop}", "--baseline", "nothing.json"), 2, "cannot be read"),
        (("{shop}", "--sarif-report", "no/folder/x.sarif"), 2, "no folder"),
        (("nothing.json",), 2, "cannot be read"),
        (("no_such_module:app",), 3, "cannot be imported"),
        (("{module}:nothing",), 3, "there is no nothing"),
        (("{module}:fail", "--factory"), 3, "ZeroDivisionError"),
        (("{module}:number",), 2, "of no framework"),
        (("{module}:make", "--factory", "--ignore", "AUD-02"), 0, "clean"),
    ],
)
def test_how_it_ends(arguments, exit_code, words, shop):
    """Each fault is told, with the code of its kind."""
    done = command(*(it.format(shop=shop, module=shop.partition(":")[0]) for it in arguments))
    assert (done.exit_code, words in done.output) == (exit_code, True), done.output


def test_a_module_that_ends_the_process(tmp_path, monkeypatch):
    """Its exit code is not ours: 0 would be clean."""
    monkeypatch.chdir(tmp_path)
    done = command(f"{Module(tmp_path, 'raise SystemExit(0)').path.stem}:app")
    assert (done.exit_code, "ends the process" in done.stderr) == (3, True)


def test_nothing_to_check(tmp_path, monkeypatch):
    """4, never 0: an application that only reads."""
    monkeypatch.chdir(tmp_path)
    reads = SHOP.replace('methods=["POST"]', 'methods=["GET"]')
    done = command(f"{Module(tmp_path, reads).path.stem}:app")
    assert (done.exit_code, "nothing to check" in done.stdout) == (4, True)


def test_ignored_at_a_route(shop):
    """By its name, or by a pattern; what silences nothing is told."""
    assert ids(report(shop, "--ignore", "aud-02:POST /charges")) == ["AUD-02 POST /refunds"]
    assert ids(report(shop, "--ignore", "AUD-02:POST /*")) == []
    done = command(shop, "--ignore", "AUD-02:POST /gone", "--ignore", "AUD-02")
    assert done.stderr == "retrysafe: silences nothing any more: --ignore AUD-02:POST /gone\n"


def test_baseline(shop, tmp_path):
    """What is written is told no more; what is new is; what is gone is told."""
    done = command(shop, "--baseline", "known.json", "--write-baseline", "--ignore", "AUD-02:POST /refunds")
    assert (done.exit_code, done.stdout) == (0, "1 findings written to known.json\n")
    assert json.loads((tmp_path / "known.json").read_text("utf-8")) == {
        "version": 1,
        "findings": ["AUD-02:POST /charges"],
    }
    assert ids(report(shop, "--baseline", "known.json")) == ["AUD-02 POST /refunds"]
    gone = {"version": 1, "findings": ["AUD-02:POST /gone", "AUD-02:POST /charges"]}
    (tmp_path / "known.json").write_text(json.dumps(gone), "utf-8")
    done = command(shop, "--baseline", "known.json")
    assert "silences nothing any more: baseline: AUD-02:POST /gone" in done.stderr
    (tmp_path / "known.json").write_text("[]", "utf-8")
    assert command(shop, "--baseline", "known.json").exit_code == 2


def test_settings_file(shop, tmp_path):
    """The table `audit` has the options too; what is given on the command line wins, and rules to ignore add up."""
    text = '[audit]\nignore = ["AUD-02:POST /charges"]\nretry_window = "72h"\nmethod = ["PUT"]\nclient = ["paypal"]\n'
    (tmp_path / "retrysafe.toml").write_text(text, "utf-8")
    expected = ["AUD-02 POST /refunds", "AUD-03 POST /charges", "AUD-03 POST /refunds"]
    assert ids(report(shop)) == expected
    assert ids(report(shop, "--retry-window", "24h")) == expected[:1]
    assert ids(report(shop, "--retry-window", "24h", "--ignore", "AUD-02:POST /refunds")) == []
    (tmp_path / "retrysafe.toml").unlink()
    (tmp_path / "pyproject.toml").write_text(text.replace("[audit]", "[tool.retrysafe.audit]"), "utf-8")
    assert ids(report(shop)) == expected
    for bad, words in [
        ("[audit]\nignroe = []", "retrysafe.toml:2: audit has no setting ignroe"),
        ('[audit]\nignore = "AUD-01"', "must be a list"),
        ("[audit]\nbaseline = 7", "must be a string"),
        ("audit = 7", "must be a table"),
    ]:
        (tmp_path / "retrysafe.toml").write_text(bad, "utf-8")
        done = command(shop)
        assert (done.exit_code, words in done.stderr) == (2, True), done.stderr


def test_for_reviews(shop, tmp_path):
    """Annotations and SARIF have the file and the line; a report for machines has nothing besides."""
    file = shop.replace(":app", ".py")
    done = command(shop, "--annotations", "--sarif-report", "audit.sarif", "--ignore", "AUD-02:POST /refunds")
    assert done.stdout.splitlines()[-1] == (
        f"::error file={file},line=9,title=AUD-02 POST /charges::POST /charges: requires no key, and its path says "
        '"charges". A client that sends no key pays twice, and nobody notices. Do: require one: a request without it '
        "is then answered with 400."
    )
    run = json.loads((tmp_path / "audit.sarif").read_text("utf-8"))["runs"][0]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == [rule.id for rule in RULES]
    (result,) = run["results"]
    assert result["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": file},
        "region": {"startLine": 9},
    }
    assert result["partialFingerprints"] == {"finding": "AUD-02:POST /charges"}
    made = json.loads(command(shop, "--json", "--annotations").stdout)
    assert (made["summary"], made["target"]) == ({"error": 2, "warning": 0, "silenced": 0}, shop)


def test_list():
    """Every rule has a line, and every number is its own."""
    lines = command("--list").stdout.splitlines()
    assert [line.partition(" ")[0] for line in lines] == [rule.id for rule in RULES]
    assert len({rule.id for rule in RULES}) == len(RULES)


def test_page():
    """docs/reference/audit-rules.md is what `python -m retrysafe.audit.reference` prints."""
    assert (ROOT / "docs/reference/audit-rules.md").read_text("utf-8") == reference.page()


@pytest.mark.parametrize(
    ("path", "name", "words", "expected"),
    [
        ("/charges", "", "", "charges"),
        ("/v1/payments/{id}/capture", "", "", "payments"),
        ("/shop/<int:pk>/refund", "", "", "refund"),
        ("/createOrder", "", "", "order"),
        ("/api/subscriptions", "", "", "subscriptions"),
        ("/things", "createPayment", "", "payment"),
        ("/things", "refund_order", "", "refund"),
        ("/things", "", "amount currency", '"amount" and "currency"'),
        ("/things", "", "cardNumber", '"card_number"'),
        ("/orders/{id}/notes", "add_order_note", "", ""),
        ("/borders", "", "", ""),
        ("/{order}/notes", "", "", ""),
        ("/webhooks/payments", "", "amount", ""),
        ("/payments", "payment_callback", "", ""),
        ("/login", "login", "user password", ""),
    ],
)
def test_money(path, name, words, expected):
    """What moves money says so; what only has to do with it does not."""
    found = money_in(Operation("POST", path, evidence=Evidence(name=name, words=frozenset(words.split()))))
    assert (bool(found), expected in found) == (bool(expected), True)


def test_code_that_cannot_be_read():
    """A handler without source, and one that is no function, show nothing, and nothing is claimed of them."""
    space: dict[str, object] = {"__name__": "nowhere"}
    exec("def handler(request): pass", space)
    evidence = evidence_of(space["handler"], "POST")
    assert (evidence.mentions("complete_within"), evidence.silenced) == (None, frozenset())
    assert evidence_of(object(), "POST").place is None
