"""Code blocks of a documentation page: finding them, and running or checking each by its kind.

`test_code_blocks` states the rules for those who write pages; this module carries them out. Every
check raises `BlockError`, which names the page and the line.
"""

from __future__ import annotations

import doctest
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

from markdown_it import MarkdownIt
from packaging.requirements import Requirement

from retrysafe.errors import ConfigurationError
from retrysafe.gateway import config
from retrysafe.gateway.settings_file import OWN_NAME, SHARED_NAME, SettingsFile
from retrysafe.protocol import states
from retrysafe.verify import profile
from retrysafe.verify.options import Given, build, read_suite
from retrysafe.verify.probe import Settings
from tests.docs.module import run_module

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
CURL = Path(__file__).with_name("curl.py")
SECONDS_MAX = 90
SECONDS_TO_END_MAX = 60

_REQUIRED = {"upstream": "http://127.0.0.1:9000", "store": "memory://", "scope": "anonymous"}
_FILE_NAME = re.compile(r"# ([\w-]+\.(?:py|toml|sh))")
_PORT = re.compile(r"(?:(?<=127\.0\.0\.1:)|(?<=localhost:)|(?<=--port )|(?<=port=))\d{2,5}\b")
_ADDRESS = re.compile(r"(?:127\.0\.0\.1|localhost):(\d+)")
_SET_UP = ("git clone", "make", "pip install", "python -m pip install", "python3 -m pip install")
_SET_UP_TOO = ("cd", "python3 -m venv", "python -m venv", ". ", "source ")
_FIELD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+: ?\S.*")
_START = re.compile(r"[A-Z]+ \S+ HTTP/(?:1\.1|2)|HTTP/(?:1\.1|2) \d{3}(?: .+)?")
_MERMAID = ("flowchart", "graph", "sequenceDiagram", "stateDiagram-v2")

# Two things that a reader does and a script does not. Before a command that calls curl, it waits until
# what is called listens. And when it is through, it says so and stays until its servers have ended.
_PROLOGUE = r"""
listening() { for _ in {1..100}; do (: </dev/tcp/127.0.0.1/$1) 2>/dev/null && return; sleep 0.1; done; }
trap '[[ $BASH_COMMAND =~ curl\ .*(127\.0\.0\.1|localhost):([0-9]+) ]] && listening ${BASH_REMATCH[2]}' DEBUG
trap 'echo $? > "$STATUS.new"; mv "$STATUS.new" "$STATUS"; trap : TERM; until wait; do :; done' EXIT
"""


class BlockError(AssertionError):
    """A code block does not do what its page says."""


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: where it is, its info string, its text."""

    page: str
    line: int
    kind: str
    text: str

    def fault(self, what: str) -> BlockError:
        """An error that names this block."""
        return BlockError(f"{self.page}:{self.line} ```{self.kind}\n{what}")


def blocks_of(page: str, text: str) -> list[Block]:
    """The code blocks of a page, in order; an indented one has the kind `indented`."""
    return [
        Block(page, token.map[0] + 1, token.info.strip() if token.type == "fence" else "indented", token.content)
        for token in MarkdownIt().parse(text)
        if token.type in {"fence", "code_block"} and token.map
    ]


# --- what is checked, not run ---------------------------------------------------------------------


def check_json(block: Block) -> None:
    """The block is JSON."""
    try:
        json.loads(block.text)
    except ValueError as error:
        raise block.fault(f"not JSON: {error}") from None


def check_toml(block: Block, folder: Path) -> None:
    """The block is TOML; unless it configures only other tools, the gateway accepts it.

    It may be a part: what the gateway cannot do without is added. A file with a secret need not be here.
    """
    try:
        table = tomllib.loads(block.text)
    except tomllib.TOMLDecodeError as error:
        raise block.fault(f"not TOML: {error}") from None
    if "tool" in table and "retrysafe" not in table["tool"]:
        return
    name = saved.group(1) if (saved := _FILE_NAME.match(block.text)) else ""
    if name == "verify.toml" or name.endswith("-profile.toml"):
        _check_verify(block, folder / name)
        return
    path = folder / (SHARED_NAME if "tool" in table else OWN_NAME)
    path.write_text(block.text, "utf-8")
    file = SettingsFile(path)
    given = {name: config.Value(text, "docs") for name, text in _REQUIRED.items() if name not in file.table}
    try:
        config.build(config.read(given, {}, file))
    except ConfigurationError as error:
        if faults := [fault for fault in error.faults if "secret_file cannot be read" not in fault]:
            raise block.fault("retrysafe does not accept it: " + "; ".join(faults)) from None


def _check_verify(block: Block, path: Path) -> None:
    """The block is a suite of `retrysafe verify`, or a profile for it."""
    path.write_text(block.text, "utf-8")
    try:
        if path.name == "verify.toml":
            build(Given(**read_suite(path)), Settings())
        else:
            profile.load(str(path))
    except ConfigurationError as error:
        raise block.fault("retrysafe does not accept it: " + "; ".join(error.faults)) from None


def check_http(block: Block) -> None:
    """The block is one HTTP message: a start line, field lines, and JSON content if it says so."""
    head, _, content = block.text.partition("\n\n")
    start, *fields = head.splitlines()
    if not _START.fullmatch(start):
        raise block.fault(f"{start!r} is neither a request line nor a status line")
    for field in fields:
        if not _FIELD.fullmatch(field):
            raise block.fault(f"{field!r} is not a field line")
    if any(re.match(r"content-type: application/(\w+\+)?json", field, re.IGNORECASE) for field in fields) and content:
        check_json(Block(block.page, block.line, block.kind, content))


def check_mermaid(block: Block) -> None:
    """The block is a diagram of a known type; a diagram of states is the one that the table draws."""
    type_ = block.text.split(maxsplit=1)[0]
    if type_ not in _MERMAID:
        raise block.fault(f"{type_} is none of {', '.join(_MERMAID)}")
    if type_ == "stateDiagram-v2" and block.text != states.diagram():
        raise block.fault(f"this is not what retrysafe.protocol.states draws:\n{states.diagram()}")


def check_text(block: Block) -> None:
    """Anything goes."""


# --- set-up commands: checked against the project -------------------------------------------------


def is_set_up(block: Block) -> bool:
    """Whether the block prepares a checkout or an installation."""
    return any(command.startswith(_SET_UP) for command in _simple_commands(block))


def check_set_up(block: Block) -> None:
    """Every command clones, installs or makes; what it installs is declared and what it makes exists."""
    for command in _simple_commands(block):
        if command.startswith("make"):
            _check_make(block, command)
        elif " install " in command:
            _check_install(block, command)
        elif not command.startswith(_SET_UP + _SET_UP_TOO):
            raise block.fault(
                f"{command!r} stands among set-up commands, so nothing runs it; give it a block of its own"
            )


def _simple_commands(block: Block) -> list[str]:
    scripts = [command for command, _ in _exchanges(block)] if block.kind == "console" else [block.text]
    lines = [line for script in scripts for line in script.splitlines() if line and not line.startswith("#")]
    return [command.strip() for line in lines for command in line.split("&&")]


def _check_make(block: Block, command: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        [*shlex.split(command, comments=True), "--dry-run"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise block.fault(f"{command}: {done.stderr}")


def _check_install(block: Block, command: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    extras = project["project"]["optional-dependencies"]
    declared = {Requirement(line).name for group in project["dependency-groups"].values() for line in group}
    declared |= {Requirement(line).name for lines in extras.values() for line in lines} | {"retrysafe"}
    words = shlex.split(command.partition(" install ")[2], comments=True)
    for word in words:
        if word.startswith("-"):
            continue
        requirement = Requirement("retrysafe" + word[1:] if word.startswith(".") else word)
        unknown = set(requirement.extras) - set(extras) if requirement.name == "retrysafe" else set()
        if requirement.name not in declared or unknown:
            raise block.fault(f"{word} is not declared in pyproject.toml")


# --- what is run ----------------------------------------------------------------------------------


class Session:
    """One reader's afternoon with one page: a folder, a namespace, and the servers started on the way.

    Args:
        folder: empty; every command runs in it.
        namespace: the module whose namespace the Python blocks share.
    """

    def __init__(self, folder: Path, namespace: ModuleType) -> None:
        self._folder = folder
        self._namespace = namespace
        self._ports: dict[str, str] = {}
        self._scripts: list[subprocess.Popen[bytes]] = []
        self._document = ""
        self._aside = folder / ".aside"  # comes last on the path: its curl stands in where there is none
        self._aside.mkdir()
        (self._aside / "curl").write_text(f'#!/bin/sh\nexec "{sys.executable}" "{CURL}" "$@"\n', "ascii")
        (self._aside / "curl").chmod(0o755)

    def run(self, block: Block) -> None:
        """Run or check one block."""
        kinds: dict[str, Callable[[Block], None]] = {
            "bash": self._bash,
            "console": self._console,
            "python": self._python,
            "html": self._html,
            "js": self._js,
            "toml": self._toml,
            "json": check_json,
            "http": check_http,
            "mermaid": check_mermaid,
            "text": check_text,
        }
        if block.kind not in kinds:
            raise block.fault(f"the kind of a block is one of {', '.join(kinds)}, and nothing else stands after it")
        kinds[block.kind](block)

    def close(self) -> None:
        """Stop every process that a command left running.

        Raises:
            AssertionError: one did not end when it was told to.
        """
        stubborn = []
        for script in self._scripts:
            _signal(script.pid, signal.SIGTERM)
            try:
                script.wait(SECONDS_TO_END_MAX)
            except subprocess.TimeoutExpired:
                stubborn.append(script)
            _signal(script.pid, signal.SIGKILL)
            script.wait()
        assert not stubborn, f"still running {SECONDS_TO_END_MAX} s after SIGTERM: {stubborn}"

    def _python(self, block: Block) -> None:
        text = self._save(block)
        for port in _ADDRESS.findall(text):
            if self._scripts:
                _eventually(partial(_listens, int(port)), seconds=10)
        padding = "\n" * block.line  # so that a traceback shows the line of the page
        exec(compile(padding + text, block.page, "exec"), self._namespace.__dict__)

    def _toml(self, block: Block) -> None:
        check_toml(block, self._aside)
        self._save(block)

    def _html(self, block: Block) -> None:
        self._document = block.text

    def _js(self, block: Block) -> None:
        if not self._ports:
            raise block.fault("there is no server on this page that it could run against")
        port = next(iter(self._ports.values()))
        if faults := run_module(self._localised(block.text), self._document, f"http://127.0.0.1:{port}"):
            raise block.fault("\n".join(faults))

    def _bash(self, block: Block) -> None:
        if is_set_up(block):
            check_set_up(block)
            return
        self._save(block)
        self._shell(block, "set -eu -o pipefail\n" + self._localised(block.text))

    def _console(self, block: Block) -> None:
        if is_set_up(block):
            check_set_up(block)
            return
        for command, shown in _exchanges(block):
            output = self._shell(block, self._localised(command))
            patience_s = 10 if command.endswith("&") else 0
            if shown and not _eventually(partial(self._matches, shown, output), seconds=patience_s):
                raise block.fault(f"$ {command}\nshows\n{shown}\nand not\n{self._printed(output)}")

    def _shell(self, block: Block, script: str) -> Path:
        """Run a script; processes that it leaves in the background live until the session is closed."""
        output, status = (self._aside / f"{name}-{len(self._scripts)}" for name in ("output", "status"))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RETRYSAFE_")}
        environment |= {
            "PATH": f"{BIN}:{os.environ['PATH']}:{self._aside}",
            "HOME": str(self._folder),
            "COLUMNS": "100",
            "STATUS": str(status),
        }
        with output.open("wb") as sink:
            process = subprocess.Popen(
                ["bash", "-c", _PROLOGUE + script],
                cwd=self._folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._scripts.append(process)
        if not _eventually(lambda: status.exists() or process.poll() is not None, seconds=SECONDS_MAX):
            raise block.fault(f"still running after {SECONDS_MAX} s; a server is started with &")
        if (code := status.read_text("ascii").strip() if status.exists() else str(process.returncode)) != "0":
            raise block.fault(f"exit status {code}:\n{self._printed(output)}")
        return output

    def _matches(self, shown: str, output: Path) -> bool:
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        return doctest.OutputChecker().check_output(shown, self._printed(output), flags)

    def _printed(self, output: Path) -> str:
        """What was printed, with the ports that the page shows."""
        printed = output.read_text("utf-8", "replace").replace("\r", "")
        for shown, real in self._ports.items():
            printed = re.sub(rf"\b{real}\b", shown, printed)
        return printed

    def _localised(self, text: str) -> str:
        """The text with a free port for each that it names, the same one all over the page."""

        def port(match: re.Match[str]) -> str:
            return self._ports.setdefault(match[0], str(_free_port()))

        return _PORT.sub(port, text)

    def _save(self, block: Block) -> str:
        """The text as it runs here, saved if its first line names a file."""
        text = self._localised(block.text)
        if named := _FILE_NAME.fullmatch(text.partition("\n")[0]):
            (self._folder / named[1]).write_text(text, "utf-8")
        return text


@contextmanager
def session(folder: Path, namespace: ModuleType) -> Iterator[Session]:
    """A session whose processes are gone at the end."""
    opened = Session(folder, namespace)
    try:
        yield opened
    finally:
        opened.close()


def _exchanges(block: Block) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with the output that is shown for it."""
    before, *parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
    if before or not parts:
        raise block.fault('a console block starts with a command, after "$ "')
    for part in parts:
        command, *rest = part.splitlines()
        while command.endswith("\\") and rest:
            command += "\n" + rest.pop(0).removeprefix("> ")
        yield command, "".join(line + "\n" for line in rest)


def _eventually(holds: Callable[[], bool], *, seconds: float) -> bool:
    """Whether something comes to hold in that time; looks at least once."""
    end = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < end:
        time.sleep(0.02)  # noqa: TID251 - this is the bounded poll
    return held


def _signal(group: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number
