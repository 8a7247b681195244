"""Where what is judged runs: an environment for each package, and a server for each application."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.environments import AbsentError, python_of
from bench.servers import free_port, uvicorn
from conformance.catalogue import Subject

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "conformance"
_READY_S_MAX = 90.0
_STOP_S_MAX = 15.0
_POLL_S = 0.05
_LOG_CHARACTERS = 2_000
_THREADS = 40


class NotServedError(Exception):
    """An application did not answer; the message has the end of what it wrote."""


@contextmanager
def served(subject: Subject, folder: Path, cache: Path = CACHE) -> Iterator[str]:
    """The application of a subject, for as long as the context lasts; its address.

    Args:
        subject: what is judged.
        folder: empty; its files and its log go there.
        cache: where environments are kept.

    Raises:
        AbsentError: the package does not install.
        NotServedError: the application does not answer.
    """
    port = free_port()
    python = sys.executable if subject.peer is None else str(python_of(subject.peer, cache))
    environment = {"STORE": f"sqlite:///{folder / 'records.db'}", "PORT": str(port)}
    with ExitStack() as running:
        match subject.kind:
            case "asgi":
                command = uvicorn(subject.application, port, python)
            case "wsgi":
                bound = ("--bind", f"127.0.0.1:{port}", "--threads", str(_THREADS))
                command = [python, "-m", "gunicorn", *bound, "--log-level", "warning", subject.application]
            case "node":
                environment["NODE_PATH"] = str(modules_of(subject, cache))
                command = ["node", str(ROOT / "conformance" / "node" / subject.application)]
            case "gateway":
                upstream = free_port()
                running.enter_context(_process(uvicorn(subject.application, upstream), upstream, folder, {}))
                command = [
                    *(python, "-m", "retrysafe", "serve", "--upstream", f"http://127.0.0.1:{upstream}"),
                    *("--listen", f"127.0.0.1:{port}", "--store", environment["STORE"], "--scope", "authorization"),
                ]
            case "mutant":
                command = [python, "-m", "retrysafe.lab.mutants", subject.application, "--port", str(port)]
            case "absent":
                raise AbsentError(npm_says(subject.modules[0]))
        running.enter_context(_process(command, port, folder, environment))
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _process(command: Sequence[str], port: int, folder: Path, settings: Mapping[str, str]) -> Iterator[None]:
    log = folder / f"{port}.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RETRYSAFE_")}
    environment |= {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", **settings}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder, env=environment)
    try:
        _await_ready(process, port, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end_s = time.monotonic() + _READY_S_MAX
    while process.poll() is None and time.monotonic() < end_s:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(_POLL_S)  # noqa: TID251 - the bounded poll
    raise NotServedError(f"it did not answer; it wrote: {log.read_text('utf-8', 'replace')[-_LOG_CHARACTERS:]}")


# --- Node ---------------------------------------------------------------------------------------


def modules_of(subject: Subject, cache: Path) -> Path:
    """The modules of a Node package, which are installed if they are not there.

    Raises:
        AbsentError: npm is not there, or does not find it.
    """
    name = subject.modules[0].strip("@").replace("/", "-")
    folder = cache / f"node-{name}"
    if not (folder / "ready").exists():
        print(f"conformance: {', '.join(subject.modules)} into {folder}", file=sys.stderr, flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        _npm("install", "--no-audit", "--no-fund", "--prefix", str(folder), *subject.modules)
        (folder / "ready").touch()
    return folder / "node_modules"


def npm_says(module: str) -> str:
    """Why the registry does not have a module.

    Raises:
        NotServedError: it has it by now, so that it is to be judged.
    """
    try:
        version = _npm("view", module, "version")
    except AbsentError as absent:
        return str(absent)
    raise NotServedError(f"the registry has {module} by now, as {version.strip()}: the catalogue should judge it")


def _npm(*arguments: str) -> str:
    npm = shutil.which("npm")
    if npm is None:
        raise AbsentError("npm is not installed: apt-get install nodejs npm")
    done = subprocess.run([npm, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "code E" in line]
        raise AbsentError(lines[0].partition("code ")[2] if lines else f"npm {arguments[0]} failed")
    return done.stdout
