"""`retrysafe lab storm` from its options to its exit code."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from retrysafe.errors import ConfigurationError
from retrysafe.faults import parse
from retrysafe.lab.judged import End, Judged
from retrysafe.lab.show import progress
from retrysafe.lab.storm import FAULTS, Inconclusive, Stormed, Wanted, check, storm
from retrysafe.verify.options import Given, build
from retrysafe.verify.probe import Settings

CLEAN, FINDINGS, INCONCLUSIVE = 0, 1, 4
_TOLD = {
    End.DONE: "were told that it is done",
    End.REFUSED: "were refused",
    End.UNKNOWN: "were told that nobody knows",
    End.OPEN: "gave up",
}
_WRONG = {
    "duplicates": "effects beyond the first of an operation",
    "lost": "operations that were said to be done, and have no effect",
    "wrong": "operations with two different successes, or refused although they had been done",
}


def run(options: Mapping[str, Any], seed: int, say: Callable[[str], None]) -> int:
    """Do what the command line asks for, and give the exit code.

    Args:
        options: by their names.
        seed: of all chance.
        say: prints a line.

    Raises:
        ConfigurationError: something in the options cannot be used.
        RetrysafeError: the target cannot be reached, or its effects cannot be counted.
    """
    _refuse_place(options["json_report"])
    wanted = _wanted(options, seed)
    for line in _heading(wanted):
        say(line)
    try:
        with progress() as bar:
            stormed = asyncio.run(storm(wanted, bar("operations", wanted.operations)))
    except Inconclusive as reason:
        say(f"inconclusive: {reason}")
        return INCONCLUSIVE
    for line in _found(stormed):
        say(line)
    if options["json_report"]:
        Path(options["json_report"]).write_text(json.dumps(_document(wanted, stormed), indent=2) + "\n", "utf-8")
    return CLEAN if stormed.judged.is_clean else FINDINGS


def _wanted(options: Mapping[str, Any], seed: int) -> Wanted:
    operation = options["operation"]
    if not operation:
        raise ConfigurationError(["at what? give METHOD URL"])
    names = {each.name for each in fields(Given)}
    said = {name: value for name, value in options.items() if name in names and value not in {None, ()}}
    said["operation"] = " ".join(operation if len(operation) > 1 else ("POST", *operation))
    settings = Settings(timeout_s=options["timeout_s"], effects_max=options["effects_max"])
    chances = parse(options["fault"] or FAULTS.split())
    run = build(Given(**said), settings)
    wanted = Wanted(run, options["operations"], options["clients"], options["attempts"], chances, seed)
    check(wanted)
    return wanted


def _refuse_place(place: str | None) -> None:
    if place and not Path(place).parent.is_dir():
        raise ConfigurationError([f"--json-report: there is no folder {Path(place).parent}"])


def _heading(wanted: Wanted) -> list[str]:
    target = wanted.run.target
    assert target.counter is not None, "checked before"
    return [
        f"target   {target.operation.method} {target.operation.url}",
        f"effects  {target.counter.text}",
        f"run      {wanted.run.id}; its references begin with verify-{wanted.run.id}-",
        f"faults   {' '.join(map(str, wanted.chances))}",
        f"seed     {wanted.seed}; the same faults again: --seed {wanted.seed}",
        "",
    ]


def _found(stormed: Stormed) -> list[str]:
    judged = stormed.judged
    met = ", ".join(f"{count} {name}" for name, count in stormed.met.most_common())
    told = ", ".join(f"{judged.ends[end]} {words}" for end, words in _TOLD.items())
    answers = ", ".join(f"{count} x {answer}" for answer, count in stormed.answers.most_common())
    return [
        f"{judged.operations} operations in {judged.attempts} requests; {judged.faulty} met faults: {met}",
        f"answers: {answers}",
        f"clients: {told}",
        "",
        *(_line(judged, name, what) for name, what in _WRONG.items()),
    ]


def _line(judged: Judged, name: str, what: str) -> str:
    count = getattr(judged, name)
    examples = f": {', '.join(judged.examples[name])}" if count else ""
    return f"{name:<11}{count:>6}  {what}{examples}"


def _document(wanted: Wanted, stormed: Stormed) -> dict[str, Any]:
    judged = stormed.judged
    return {
        "target": f"{wanted.run.target.operation.method} {wanted.run.target.operation.url}",
        "run": wanted.run.id,
        "seed": wanted.seed,
        "faults": [str(chance) for chance in wanted.chances],
        "operations": judged.operations,
        "requests": judged.attempts,
        "operations_with_faults": judged.faulty,
        "met": dict(stormed.met),
        "answers": dict(stormed.answers),
        "clients": {str(end): count for end, count in judged.ends.items()},
        "duplicates": judged.duplicates,
        "lost": judged.lost,
        "wrong": judged.wrong,
        "examples": judged.examples,
    }
