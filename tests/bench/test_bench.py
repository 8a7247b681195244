"""The benchmark judges what it measures, and cannot be won by what does not do it."""

from __future__ import annotations

from contextlib import contextmanager
from xml.etree import ElementTree as ET

import pytest

from bench import calls, load, page, report, servers
from bench.bare import SLOW_PATH
from bench.cases import BARE, CASES, DOORS, FLOOR, LIBRARIES, MEMORY, MODES, PEERS, SEEN, Caller, Group
from bench.load import BODY, Keys, Load, SpoiltError
from bench.proof import Client, failed_checks, prove_runs, prove_unprotected
from bench.results import Count, Results, Sample, saved
from bench.run import main
from bench.servers import ROOT, free_port, gunicorn, running, uvicorn
from bench.targets import TARGETS, Measure, Target
from retrysafe.lab.charts import Bar, chart
from tests.gateway.processes import until

NAMES = {case.name: case for case in CASES}
MACHINE = {"processor": "one", "date": "2026-01-01", "disk": "quick", "servers": "", "filled": ""}


@contextmanager
def serving(door, folder):
    """The application of a door, as it is measured."""
    port = free_port()
    command = (gunicorn if door.blocking else uvicorn)(door.factory, port)
    with running(command, port, core=servers.CORE, folder=folder, settings={"BENCH_STORE": "memory://"}) as server:
        yield server


def sample(per_second, *, p50_us=100.0, failed=0, wrong=()):
    return Sample(1_000, failed, per_second, p50_us, 200.0, 20.0, 30.0, 0.0, wrong)


def results(group, *rounds, absent=None):
    return Results(group, MACHINE, 1, list(rounds), absent or {})


def test_cases_have_names_of_their_own():
    """No case hides another in a round."""
    assert len(NAMES) == len(CASES)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.what)
def test_target_divides_what_is_measured_together(target):
    """Both cases of a target are in one group, so that its ratio is inside one round."""
    case = NAMES[target.case]
    assert not target.base or NAMES[target.base].group is case.group
    assert (target.measure is Measure.COUNT) == case.work.is_counted


@pytest.mark.parametrize(
    "door",
    [FLOOR, MEMORY, DOORS["Flask"]["SQLite"], DOORS["Django, async"]["SQLite"]],
    ids=["floor", "memory", "flask", "django"],
)
def test_what_protects_passes_its_checks(door, tmp_path):
    """The floor does what the contract demands of it, as the product does, on threads and in a loop."""
    with serving(door, tmp_path) as server:
        assert list(failed_checks(server, server, ours=True, quoted=True)) == []


def test_what_does_not_protect_fails_every_check(tmp_path):
    """Each check can fail but the one that an unprotected application keeps."""
    with serving(BARE, tmp_path) as server:
        prove_unprotected(server, server)
        failed = list(failed_checks(server, server, ours=True, quoted=True))
    assert [line.partition(":")[0] for line in failed] == [
        "a retry has the same bytes",
        "another body is refused",
        "50 at once run it once",
    ]


def test_client_is_proved_by_what_its_server_saw(tmp_path):
    """With a transport each call has a key of its own; that a client without one had any would spoil it."""
    with serving(SEEN, tmp_path) as server:
        journalled = Caller("urllib3", "journal")
        seen = calls.fire(server.url, journalled, folder=tmp_path, core=load.CORE, seconds=1)
        calls.prove(server, journalled, seen)
        assert seen.calls >= seen.requests > 0
        assert seen.per_second > 0
        with pytest.raises(SpoiltError, match="expected 0 keys"):
            calls.prove(server, Caller("urllib3", "bare"), seen)


def test_client_that_gets_no_answer_spoils_its_measurement(tmp_path):
    """It is told what the client said."""
    with pytest.raises(SpoiltError, match="aiohttp, bare"):
        calls.fire(f"http://127.0.0.1:{free_port()}", Caller("aiohttp", "bare"), folder=tmp_path, core=0, seconds=1)


def test_doors_and_transports_have_tables_of_their_own():
    """Each beside what it is without us, with a chart of each."""
    doors = results(Group.DOORS, {case.name: sample(40.0) for case in CASES if case.group is Group.DOORS})
    rounds = [{f"{name}, {mode}": sample(100.0 / (1 + MODES.index(mode))) for name in LIBRARIES for mode in MODES}]
    both = [doors, results(Group.TRANSPORTS, *rounds)]
    assert f"| Flask | 40 | {' | '.join(['1.00'] * 2)} |" in report.of_doors(both)
    assert "| requests | 100 | 0.50 | 0.33 |" in report.of_transports(both)
    assert report.of_targets(both) == ""
    assert {"doors-sqlite", "doors-redis", "transports"} <= set(page._pictures(both))


def test_floor_refuses_what_is_no_key(tmp_path):
    """A key that cannot be parsed and a missing account run nothing."""
    with serving(FLOOR, tmp_path) as server, Client(server) as client, Client(server, account="") as nobody:
        assert [client.post('"unterminated').status, nobody.post("k").status] == [400, 400]
        assert client.runs() == 0
        assert client.post("k").status == client.post('"k"').status == 201
        assert client.runs() == 1


def test_floor_answers_a_duplicate_in_flight_with_409(tmp_path):
    """One that comes meanwhile is refused, whatever its spelling."""
    with serving(FLOOR, tmp_path) as server, Client(server) as one, Client(server) as other:
        one._connection.request(
            "POST", SLOW_PATH, BODY, {"Content-Type": "application/json", "X-Account-Id": "a", "Idempotency-Key": "k"}
        )
        other._account = "a"
        until(other.runs, "the first one runs")
        assert other.post('"k"', path=SLOW_PATH).status == 409
        assert one._connection.getresponse().status == 201


def test_runs_that_do_not_fit_spoil_a_measurement():
    """A replay that ran, and a first request that did not, are no result; one dropped at the end may have run."""
    seen = Load(requests=100, failed=0, per_second=1.0, p50_us=1, p99_us=1)
    prove_runs(0, seen, replays=True, concurrency=4)
    prove_runs(108, seen, replays=False, concurrency=4)
    for count, replays in [(1, True), (99, False), (109, False)]:
        with pytest.raises(SpoiltError):
            prove_runs(count, seen, replays=replays, concurrency=4)


def test_keys_are_quoted_or_bare():
    """The rings of a run are spelt as its requests are."""
    assert Keys(2, quoted=True, prefix="p").all() == ['"p-00000001"', '"p-00000002"']
    assert Keys(1, quoted=False, prefix="p").all() == ["p-00000001"]


def test_what_was_measured_is_read_back(tmp_path):
    """A group's file says all that was found; there is none of a group that was not measured."""
    known = results(
        Group.COUNTS, {"redis, bytes": Count(900.0), "bare": sample(10.0, wrong=["late"])}, absent={"p": "q"}
    )
    known.save(tmp_path)
    assert saved(tmp_path, Group.COUNTS) == known
    assert saved(tmp_path, Group.PEERS) is None


def test_figure_is_the_median_of_ratios_inside_rounds():
    """Not the ratio of medians: rounds on a busy machine are compared with themselves."""
    rounds = [
        {"bare": sample(bare), "memory first": sample(memory)} for bare, memory in [(100, 50), (10, 6), (1_000, 400)]
    ]
    (figure,) = report.figures([results(Group.MIDDLEWARE, *rounds)])
    assert (figure.target.case, figure.found, figure.median) == ("memory first", (0.5, 0.6, 0.4), 0.5)
    assert figure.kept
    assert figure.spread == "0.50 [0.40-0.60]"


@pytest.mark.parametrize(
    ("measure", "kept", "missed"),
    [(Measure.RATE, 0.5, 0.49), (Measure.P50, 0.5, 0.51), (Measure.FAILED, 0, 1), (Measure.COUNT, 0.5, 0.6)],
)
def test_bound_of_a_target(measure, kept, missed):
    """A rate has to be as high, anything else as low."""
    target = Target("it", "bare", "", 0 if measure is Measure.FAILED else 0.5, measure)
    assert target.kept(kept)
    assert not target.kept(missed)


def test_tables_say_what_is_missed():
    """A missed target, and what a failed request is, can be seen."""
    crowd = results(Group.CROWD, {"redis c=256": sample(1.0, failed=3), "memory c=256": sample(1.0)})
    assert "| refused or failed at c=256, Redis | 3 | at most 0 | **missed** |" in report.of_targets([crowd])
    assert "| refused or failed at c=256, memory store | 0 | at most 0 | kept |" in report.of_targets([crowd])


def peers_round():
    found = {case.name: sample(40.0) for case in CASES if case.group is Group.PEERS and case.door.peer is None}
    for name in PEERS:
        found |= {f"{name} first": sample(10.0, wrong=["another body is refused: no"]), f"{name} replay": sample(20.0)}
    return found


def test_peer_is_shown_with_the_check_that_it_failed():
    """And one that does not install with what pip said."""
    found = peers_round()
    absent = {"pyidempotent": "no such package"}
    found = {name: one for name, one in found.items() if "pyidempotent" not in name}
    table = report.of_peers([results(Group.PEERS, found, absent=absent)])
    assert "| mobius, FastAPI | 0.25 | 0.50 | 0 | another body is refused: no |" in table
    assert "| pyidempotent, FastAPI |  |  | 0 | does not install here: no such package |" in table
    assert "| retrysafe, raw | 1.00 | 1.00 | 0 | none |" in table


def test_page_is_written_between_its_markers(tmp_path):
    """What people wrote stays, and every picture that the page shows is there."""
    text = f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n"
    (tmp_path / "page.md").write_text(text, "utf-8")
    rounds = [{"bare": sample(100), "memory first": sample(50), "memory replay": sample(60)}]
    both = [results(Group.MIDDLEWARE, *rounds), results(Group.PEERS, peers_round())]
    page.write(both, tmp_path / "page.md", tmp_path / "charts")
    written = (tmp_path / "page.md").read_text("utf-8")
    assert written.startswith(f"before\n{page.BEGIN}\n")
    assert written.endswith(f"{page.END}\nafter\n")
    assert "old" not in written
    for name in ("first", "replay", "peers"):
        assert f"(charts/{name}.svg)" in written
        ET.parse(tmp_path / "charts" / f"{name}.svg")


def test_page_without_markers_is_left_alone():
    """There is no guess where results go."""
    with pytest.raises(ValueError, match="markers"):
        page.inserted("nothing", "results")


def test_page_of_the_project_has_the_markers():
    """The command of the docs can write them."""
    assert "x" in page.inserted((ROOT / "docs" / "benchmarks.md").read_text("utf-8"), "x")


def test_chart_draws_to_scale():
    """Bars are as long as their values, and text is escaped."""
    drawing = ET.fromstring(chart("a < b", [Bar("one & only", 1.0), Bar("half", 0.5, target=2.0)]))
    space = "{http://www.w3.org/2000/svg}"
    one, half = (float(bar.attrib["width"]) for bar in drawing.iter(f"{space}rect"))
    assert one == 2 * half
    assert "one & only" in [text.text for text in drawing.iter(f"{space}text")]
    assert len(list(drawing.iter(f"{space}line"))) == 1


def test_group_that_is_measured_already_is_left_out(tmp_path, capsys):
    """A run that goes on measures nothing twice, and judges what is there."""
    rounds = [{"bare": sample(100), "memory first": sample(49)}] * 5
    results(Group.MIDDLEWARE, *rounds).save(tmp_path)
    assert main(["--resume", "--only", "middleware", "--results", str(tmp_path)]) == 1
    assert "Targets missed: memory store, first request / bare." in capsys.readouterr().out


def test_nothing_measured_is_no_success(tmp_path):
    """Writing up what is not there proves nothing."""
    assert main(["--only", "--results", str(tmp_path)]) == 4
