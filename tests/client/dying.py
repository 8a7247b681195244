"""One call of an intent with a journal, in a process that dies at the point that it is told.

    python -m tests.client.dying

Each line of the standard input is a job; each is done in a fork, and answered by a line with its exit status. A point
is a line of the modules that do something outside of the process, when it is reached for the first time: so no list of
them has to be kept, and none can be forgotten.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import httpx2

import retrysafe.client
from retrysafe.client.intent import intent
from retrysafe.client.journal import Journal
from retrysafe.httpx import IdempotencyTransport
from tests.client.clients import QUICK

FOLDER = Path(retrysafe.client.__file__).parent
WATCHED = {str(FOLDER / f"{name}.py") for name in ("httpx", "journal", "holder", "protection", "run")}


class Points:
    """Counts the points that a run comes by, and dies at one of them."""

    def __init__(self, dies_at: int | None) -> None:
        self.seen: set[tuple[str, int]] = set()
        self.dies_at = dies_at

    def calls(self, frame: FrameType, event: str, arg: Any) -> Any:
        """For `sys.settrace`."""
        return self.lines if frame.f_code.co_filename in WATCHED else None

    def lines(self, frame: FrameType, event: str, arg: Any) -> Any:
        """A line is reached."""
        point = (frame.f_code.co_filename, frame.f_lineno)
        if event == "line" and point not in self.seen:
            if len(self.seen) == self.dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            self.seen.add(point)
        return self.lines


def call(job: dict[str, Any]) -> None:
    """The call."""
    points = Points(job.get("dies_at"))
    sys.settrace(points.calls)
    with Journal(job["journal"]) as journal:
        transport = IdempotencyTransport(
            "retrysafe", transport=httpx2.HTTPTransport(verify=False), journal=journal, schedule=QUICK
        )
        headers = {"X-Account-Id": "7", "Connection": "close"}
        with httpx2.Client(transport=transport, timeout=10) as client, intent(job["name"]):
            client.post(job["url"], content=job["content"].encode(), headers=headers).raise_for_status()
    sys.settrace(None)
    Path(job["report"]).write_text(str(len(points.seen)))


def main() -> None:
    """All jobs."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                call(json.loads(line))
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
