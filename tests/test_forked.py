"""Processes that are forked behave as those that an interpreter of their own runs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests import forked

PROGRAMS = {
    "ends": "print('said')",
    "exits": "import sys; sys.exit(3)",
    "exits with words": "raise SystemExit('no')",
    "raises": "raise ValueError('wrong')",
    "is interrupted": "raise KeyboardInterrupt",
    "is killed": "import os; os.kill(os.getpid(), 9)",
    "says something at its end": "import atexit; atexit.register(print, 'bye', flush=True)",
    "waits for its threads": (
        "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.1), print('late'))).start()"
    ),
    "leaves something that nobody awaited": "async def left(): pass\nkept = [left()]",
    "has closed its output": "import sys; sys.stdout.close()",
    "knows where it is": "import os, sys; print(os.getcwd(), sys.argv[1:], __name__, os.environ['WHERE'], sys.path[0])",
    "has a time zone": "import time; print(time.strftime('%Z'))",
}


def environment():
    return {**os.environ, "WHERE": "here", "TZ": "Asia/Tokyo"}


def complaint(said):
    """The last line that is no code, without where a warning was raised and how to find out more."""
    lines = [line for line in said.splitlines() if not line.startswith(" ") and "tracemalloc" not in line]
    return [re.sub(".*(?=RuntimeWarning)", "", line) for line in lines[-1:]]


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_ends_as_an_interpreter_does(name, tmp_path):
    """The same exit code, the same output, and the same last complaint."""
    (tmp_path / "program.py").write_text(PROGRAMS[name])
    alone = subprocess.run(
        [sys.executable, "-m", "program", "a", "b"],
        cwd=tmp_path, env=environment(), text=True, capture_output=True, check=False,
    )  # fmt: skip
    done = forked.run("program", "a", "b", cwd=tmp_path, env=environment())
    assert (done.returncode, done.stdout) == (alone.returncode, alone.stdout)
    assert complaint(done.stderr) == complaint(alone.stderr)


def test_a_program_that_hangs(tmp_path):
    """It is ended, and what it said until then is told."""
    (tmp_path / "program.py").write_text("import signal; print('begun', flush=True); signal.pause()")
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        forked.run("program", cwd=tmp_path, env=environment(), timeout=1)
    assert caught.value.output == "begun\n"


def test_many_wait_at_once(tmp_path):
    """All of them hear how it ended; a signal that comes afterwards goes nowhere."""
    (tmp_path / "program.py").write_text("import signal; signal.pause()")
    process = forked.start("program", cwd=tmp_path, env=environment())
    assert process.poll() is None
    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(process.wait, 20) for _ in range(8)]
        process.terminate()
        assert {waited.result() for waited in waiting} == {-signal.SIGTERM}
    process.kill()


def test_what_cannot_be_handed_over():
    """An interpreter reads its own variables when it starts, and an order has a bound."""
    with pytest.raises(ValueError, match="PYTHONWARNINGS"):
        forked.start("program", cwd=forked.ROOT, env={**os.environ, "PYTHONWARNINGS": "error"})
    with pytest.raises(ValueError, match="bytes of arguments"):
        forked.start("program", "x" * 200_000, cwd=forked.ROOT, env=environment())
