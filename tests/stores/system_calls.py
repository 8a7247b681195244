"""What a process asks of the kernel, one call at a time, as `strace` sees it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.installed import installed

_LINE = re.compile(r"^(?P<thread>\d+) +(?:<\.\.\. (?P<resumed>\w+) resumed>|(?P<name>\w+)\()(?P<rest>.*)$")
_FILE = re.compile(r"^\d+<(?P<file>[^>]*)>")
_RESULT = re.compile(r"\) += (?P<result>-?\d+)")


class Call(NamedTuple):
    """A system call that came back; `text` is all its arguments as strace writes them."""

    name: str
    file: str
    text: str
    result: int


def traced(command: Sequence[str | Path], names: Sequence[str], log: Path, environment: dict[str, str]) -> list[Call]:
    """Run a program to its end; its calls of these names, in the order in which they came back."""
    options = ["-f", "-y", "-s", "200", "-e", f"trace={','.join(names)}", "-o", str(log)]
    subprocess.run([installed("strace", "strace"), *options, *command], env=environment, check=True, timeout=120)
    return list(calls(log.read_text("utf-8", "replace")))


def calls(text: str) -> Iterator[Call]:
    """Calls in the order in which they came back; one that is interrupted in the log is put together again."""
    begun: dict[str, str] = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        rest, name = match["rest"], match["name"] or match["resumed"]
        if rest.endswith("<unfinished ...>"):
            begun[match["thread"]] = rest.removesuffix("<unfinished ...>")
            continue
        whole = begun.pop(match["thread"], "") + rest if match["resumed"] else rest
        file, result = _FILE.match(whole), _RESULT.search(whole)
        if result is not None:
            yield Call(name, file["file"] if file else "", whole, int(result["result"]))
