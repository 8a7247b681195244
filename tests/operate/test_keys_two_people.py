"""`dual_control`: one proposes, another one does it."""

from __future__ import annotations

import pytest

from retrysafe.model import State
from retrysafe.protocol.transitions import Read
from tests.operate.shops import command, put, shown_of, store_of, url_of


@pytest.fixture
def store(tmp_path):
    """The file, opened; and nobody else's records in it."""
    opened = store_of(tmp_path)
    opened.open()
    yield opened
    opened.close()


@pytest.fixture
def dual(tmp_path):
    """Settings under which it takes two."""
    (tmp_path / "retrysafe.toml").write_text("dual_control = true\n")
    return ("--config", f"{tmp_path}/retrysafe.toml")


def by(folder, actor, *arguments):
    return command("keys", *arguments, "--actor", actor, "--note", "looked", "--store", url_of(folder))


@pytest.mark.parametrize("deed", [("resolve", "--not-done"), ("release", "--yes"), ("forget", "--yes")])
def test_it_takes_two(deed, dual, store, tmp_path):
    """One proposes, and nothing happens; the same one cannot approve; another one does it."""
    record_id = put(store, State.IN_PROGRESS if deed[0] == "release" else State.UNKNOWN)
    before = store.perform(Read(record_id)).record
    arguments = (deed[0], record_id.hex(), deed[1], *dual)
    unproposed = by(tmp_path, "bob", *arguments, "--approve")
    assert (unproposed.exit_code, "nobody else has proposed" in unproposed.stderr) == (1, True)
    proposed = by(tmp_path, "ann", *arguments)
    assert (proposed.exit_code, "proposed; somebody else does it" in proposed.output) == (0, True)
    assert by(tmp_path, "ann", *arguments, "--approve").exit_code == 1
    assert store.perform(Read(record_id)).record == before
    assert by(tmp_path, "bob", *arguments, "--approve").exit_code == 0
    found = store.perform(Read(record_id))
    assert found is None or found.record.state is State.RETRYABLE
    first, second = shown_of(tmp_path, record_id)["history"]
    assert [(entry["actor"], entry["proposed"], entry["took_effect"]) for entry in (first, second)] == [
        ("ann", True, False),
        ("bob", False, True),
    ]
    lines = command("keys", "show", record_id.hex(), "--store", url_of(tmp_path)).stdout
    assert f": ann: proposes {deed[0]}" in lines


def test_another_answer_is_another_proposal(dual, store, tmp_path):
    """Who approves gives the answer once more, and it has to be the same."""
    record_id = put(store, State.UNKNOWN)
    arguments = ("resolve", record_id.hex(), "--completed", *dual, "--status")
    assert by(tmp_path, "ann", *arguments, "201").exit_code == 0
    assert by(tmp_path, "bob", *arguments, "200", "--approve").exit_code == 1
    assert by(tmp_path, "bob", *arguments, "201", "--approve").exit_code == 0
    assert shown_of(tmp_path, record_id)["response"]["status"] == 201


def test_what_is_no_dual_control(store, tmp_path):
    """It is true or false; everything else is a fault, and not taken for false."""
    (tmp_path / "retrysafe.toml").write_text('dual_control = "yes"\n')
    config = ("--config", f"{tmp_path}/retrysafe.toml")
    result = by(tmp_path, "ann", "resolve", put(store, State.UNKNOWN).hex(), "--not-done", *config)
    assert (result.exit_code, "it must be true or false" in result.stderr) == (2, True)
