"""`retrysafe lab storm` finds what retries do to an API that is not safe, and nothing at one that is."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from retrysafe.cli import main
from retrysafe.lab.judged import End, Operation, judge
from retrysafe.lab.mutants.correct import Server
from tests.verify.serving import ALICE, CONTENT, COUNTED, serving

STORM = ("--json", CONTENT, *ALICE, "--seed", "11", "--timeout", "300ms")


def storm(*arguments):
    """`retrysafe lab storm` with these arguments."""
    return CliRunner().invoke(main, ["lab", "storm", *arguments])


def test_a_safe_api(tmp_path):
    """Every operation is done once, whatever the network does, and the report says what it did."""
    report = tmp_path / "report.json"
    with serving(Server()) as url:
        done = storm("POST", f"{url}/orders", *STORM, *COUNTED, "--operations", "80", "--json-report", str(report))
    assert done.exit_code == 0, done.output
    assert "seed     11; the same faults again: --seed 11" in done.output
    found = json.loads(report.read_text())
    assert (found["duplicates"], found["lost"], found["wrong"]) == (0, 0, 0)
    assert found["clients"]["done"] == found["operations"] == 80
    assert found["operations_with_faults"] > 20
    assert set(found["met"]) > {"lose-response", "deliver-twice"}


def test_a_route_that_ignores_keys():
    """Retries are done again, and their answers differ."""
    with serving(Server()) as url:
        done = storm(f"{url}/plain", *STORM, *COUNTED, "--operations", "40", "--fault", "lose-response@30%")
    assert done.exit_code == 1, done.output
    assert "duplicates      0" not in done.output
    assert "wrong           0" not in done.output


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("http://api.example/orders", *COUNTED), 2, "api.example is not this machine"),
        (("http://127.0.0.1:1/orders",), 2, "give --effects with {{unique}} in it"),
        (("http://127.0.0.1:1/orders", "--effects", "GET /orders $.total"), 2, "no total"),
        (("http://127.0.0.1:1/orders", *COUNTED, "--effects-max", "100"), 2, "up to 6001 requests"),
        (("http://127.0.0.1:1/orders", *COUNTED, "--fault", "nothing"), 2, "without a fault shows nothing"),
        (("http://127.0.0.1:1/orders", *COUNTED, "--fault", "flood"), 2, "there is no fault 'flood'"),
        (("http://127.0.0.1:1/orders", *COUNTED), 3, "nothing answers at http://127.0.0.1:1"),
        ((), 2, "give METHOD URL"),
    ],
)
def test_what_cannot_be(arguments, code, said):
    """It is said before anything is sent, or that nobody is there."""
    done = storm(*arguments, *STORM)
    assert (done.exit_code, said in done.output) == (code, True), done.output


def test_nothing_shown_is_no_pass():
    """An API that refuses everything, and a storm in which no operation met a fault, are inconclusive."""
    with serving(Server()) as url:
        nowhere = storm(f"{url}/nowhere", *STORM, *COUNTED)
        calm = storm(f"{url}/orders", *STORM, *COUNTED, "--operations", "3", "--fault", "reset@0.0001%")
    assert (nowhere.exit_code, calm.exit_code) == (4, 4), nowhere.output + calm.output
    assert "is answered 404" in nowhere.output
    assert "no operation of 3 met a fault" in calm.output


def test_what_is_wrong():
    """Each wrong is found by what its client was told and what happened, and what is honest is not wrong."""
    operations = [
        Operation("twice", End.DONE, ["a"], 2),
        Operation("lost", End.DONE, ["a"], 1),
        Operation("differs", End.DONE, ["a", "b"], 2),
        Operation("refused though done", End.REFUSED, [], 2),
        Operation("refused", End.REFUSED, [], 1),
        Operation("nobody knows", End.UNKNOWN, [], 3),
        Operation("gave up", End.OPEN, [], 3, ["reset"]),
    ]
    effects = {"twice": 3, "differs": 1, "refused though done": 1, "gave up": 1}
    judged = judge(operations, effects)
    assert (judged.duplicates, judged.lost, judged.wrong) == (2, 1, 2)
    assert judged.examples == {"duplicates": ["twice"], "lost": ["lost"], "wrong": ["differs", "refused though done"]}
    assert (judged.operations, judged.attempts, judged.faulty) == (7, 14, 1)
    assert judge(operations, effects, refusals_are_losses=True).lost == 2
