"""What was measured, group by group, in files that outlive the run: so a run can be resumed, and written up later."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.cases import Group


@dataclass(frozen=True, slots=True)
class Sample:
    """What one measurement under load found.

    Attributes:
        requests: answers of any kind.
        failed: answers that were no success, or did not come.
        per_second: answers that were a success.
        p50_us, p99_us: latency of an answer.
        cpu_us: processor time of the server in front, for each answer.
        resident_mib: memory of the server in front, at the end.
        foreign: share of both cores that went to processes that are none of ours.
        wrong: the checks that a peer did not pass; what is ours passes, or there is no sample.
    """

    requests: int
    failed: int
    per_second: float
    p50_us: float
    p99_us: float
    cpu_us: float
    resident_mib: float
    foreign: float
    wrong: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Count:
    """A figure that is counted: round trips a request, bytes a record."""

    value: float


Found = Sample | Count
Round = Mapping[str, Found]


@dataclass(frozen=True, slots=True)
class Results:
    """The rounds of a group.

    Attributes:
        group: which.
        machine: what they were measured on, and when.
        seconds: how long each measurement lasted.
        rounds: what each case found, in each round.
        absent: the peers that do not install here, and what pip said.
    """

    group: Group
    machine: Mapping[str, str]
    seconds: int
    rounds: Sequence[Round]
    absent: Mapping[str, str] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Into a file of this folder, in place of what was there."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(dataclasses.asdict(self), indent=1)
        unfinished = _file(folder, self.group).with_suffix(".new")
        unfinished.write_text(text + "\n", encoding="utf-8")
        unfinished.replace(_file(folder, self.group))


def saved(folder: Path, group: Group) -> Results | None:
    """What was measured last of this group, if it was."""
    try:
        document: dict[str, Any] = json.loads(_file(folder, group).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    rounds = [{name: _found(values) for name, values in one.items()} for one in document["rounds"]]
    return Results(group, document["machine"], document["seconds"], rounds, document["absent"])


def _found(values: Mapping[str, Any]) -> Found:
    return Count(**values) if "value" in values else Sample(**values)


def _file(folder: Path, group: Group) -> Path:
    return folder / f"{group}.json"
