"""The command line: what it says, what it calls, and its exit codes."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from retrysafe.cli import main
from retrysafe.gateway.config import SETTINGS
from retrysafe.model import Claim
from retrysafe.protocol.transitions import ClaimIfAbsent, CompleteIfHeld
from retrysafe.stores.location import open_store
from tests.gateway.processes import environment

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a command in an empty folder, without settings from outside."""
    monkeypatch.chdir(tmp_path)
    for name in environment():
        monkeypatch.setenv(name, environment()[name])

    def invoke(*arguments: str, **variables: str):
        return CliRunner().invoke(main, arguments, env={"RETRYSAFE_CONFIG": None, **variables}, prog_name="retrysafe")

    return invoke


ENOUGH = ("--upstream", "http://127.0.0.1:9000", "--store", "memory://", "--scope", "anonymous")


def test_help_shows_every_setting_with_its_variable(run):
    """An operator finds the option, the variable and the default in one place."""
    shown = run("serve", "--help").output
    for setting in SETTINGS:
        assert setting.option in shown
        assert setting.variable in shown.replace("\n", "").replace(" ", "")
    assert "RETRYSAFE_SECRET" in shown


def test_commands_are_listed(run):
    """The commands that there are."""
    shown = run("--help").output
    for command in ("serve", "demo", "purge", "stats", "migrate", "keys", "config", "version"):
        assert f"\n  {command} " in shown


def test_config_show_is_toml_with_origins(run, tmp_path):
    """What holds and where it was set; what it prints is itself a table of settings."""
    (tmp_path / "retrysafe.toml").write_text('[policy]\nlease = "5s"\n[routes."POST /a"]\nmethods = ["PUT"]\n')
    result = run("config", "show", *ENOUGH, "--policy", "required=true", RETRYSAFE_NAMESPACE="staging")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert 'upstream = "http://127.0.0.1:9000"  # --upstream' in lines
    assert 'namespace = "staging"  # RETRYSAFE_NAMESPACE' in lines
    assert f'policy.lease = "5s"  # {tmp_path}/retrysafe.toml:2' in lines
    assert "policy.required = true  # --policy" in lines
    assert 'drain = "30s"  # default' in lines
    document = tomllib.loads(result.output)
    assert document["routes"]["POST /a"] == {"methods": ["PUT"]}
    as_json = json.loads(run("config", "show", *ENOUGH, "--json").output)
    assert {"setting": "drain", "value": "30s", "origin": "default"} in as_json


def test_options_go_before_variables_before_the_file(run, tmp_path):
    """The three places, in their order."""
    (tmp_path / "retrysafe.toml").write_text('namespace = "file"\ndrain = "1s"\nlog_level = "info"\n')
    variables = {"RETRYSAFE_NAMESPACE": "variable", "RETRYSAFE_DRAIN": "2s"}
    lines = run("config", "show", *ENOUGH, "--namespace", "option", **variables).output.splitlines()
    assert 'namespace = "option"  # --namespace' in lines
    assert 'drain = "2s"  # RETRYSAFE_DRAIN' in lines
    assert f'log_level = "info"  # {tmp_path}/retrysafe.toml:3' in lines


def test_the_policy_in_a_variable(run):
    """Several options, apart from each other by spaces."""
    lines = run("config", "show", *ENOUGH, RETRYSAFE_POLICY="lease=5s required=true").output.splitlines()
    assert 'policy.lease = "5s"  # RETRYSAFE_POLICY' in lines
    assert "policy.required = true  # RETRYSAFE_POLICY" in lines


def test_a_secret_is_hidden(run, tmp_path):
    """A variable holds it; a file that was named on the command line goes before the variable."""
    secret = "0123456789abcdefgh"
    shown = run("config", "show", *ENOUGH, RETRYSAFE_SECRET=secret).output
    assert 'secret = "(hidden)"  # RETRYSAFE_SECRET' in shown
    assert secret not in shown
    (tmp_path / "s").write_text("another secret of ours")
    shown = run("config", "show", *ENOUGH, "--secret-file", "s", RETRYSAFE_SECRET=secret).output
    assert 'secret_file = "s"  # --secret-file' in shown
    assert "(hidden)" not in shown


def test_encryption_keys_are_hidden(run, tmp_path):
    """They come from a variable or a file of their own; never from the settings, and they are never shown."""
    key = "ab" * 32
    shown = run("config", "show", *ENOUGH, RETRYSAFE_ENCRYPTION_KEYS=f"{key}, {'cd' * 32}").output
    assert 'encryption_keys = "(hidden)"  # RETRYSAFE_ENCRYPTION_KEYS' in shown
    assert key not in shown
    (tmp_path / "retrysafe.toml").write_text(f'encryption_keys = "{key}"\n')
    result = run("config", "show", *ENOUGH)
    assert result.exit_code == 2
    assert "does not belong in this file; name a file in encryption_keys_file" in result.stderr
    (tmp_path / "retrysafe.toml").write_text('encryption_keys_file = "keys"\n')
    (tmp_path / "keys").write_text("swordfish")
    result = run("config", "show", *ENOUGH)
    assert result.exit_code == 2
    assert "retrysafe.toml:1: encryption_keys: key number 1 is not 32 bytes" in result.stderr
    assert "swordfish" not in result.output
    for empty in ("", "  "):
        assert run("config", "show", *ENOUGH, RETRYSAFE_ENCRYPTION_KEYS=empty).exit_code == 2


def test_a_password_in_the_url_of_the_store_is_hidden(run):
    """The rest of the URL is shown."""
    enough = ["--upstream", "http://127.0.0.1:9000", "--scope", "anonymous"]
    shown = run("config", "show", *enough, "--store", "mysql://shop:pa%2Fss@127.0.0.1:3306/shop?tls=true").output
    assert 'store = "mysql://shop:(hidden)@127.0.0.1:3306/shop?tls=true"  # --store' in shown
    assert "pa%2Fss" not in shown


@pytest.mark.parametrize(
    "command",
    [("serve",), ("config", "show"), ("purge",), ("stats",), ("migrate",), ("migrate", "--print"), ("keys", "rotate")],
)
def test_faults_are_lines_and_exit_code_2(run, command):
    """Every fault on a line of its own, on standard error."""
    result = run(*command, **({"RETRYSAFE_ENCRYPTION_KEYS": "ab" * 32} if command == ("keys", "rotate") else {}))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert all(line.startswith("retrysafe: ") for line in result.stderr.splitlines())
    assert "store is not set" in result.stderr


def test_a_policy_option_without_a_value_is_a_usage_error(run):
    """NAME=VALUE, and nothing else."""
    result = run("config", "show", *ENOUGH, "--policy", "lease")
    assert result.exit_code == 2
    assert "NAME=VALUE" in result.stderr


def test_purge_forgets_what_is_over(run, tmp_path):
    """All batches until nothing is due, and the counts."""
    url = f"sqlite:///{tmp_path}/records.db"
    asyncio.run(_finish(url, 250))
    result = run("purge", "--store", url)
    assert (result.exit_code, result.output) == (0, "expired 0, forgotten 250\n")
    assert run("purge", "--store", url).output == "expired 0, forgotten 0\n"


async def _finish(url, count):
    """Make records that are over as soon as they are finished."""
    store = open_store(url)
    store.open()
    claims = [Claim(number.to_bytes(32, "big"), bytes(16), 1) for number in range(count)]
    await asyncio.gather(
        *(store.submit(ClaimIfAbsent(claim.record_id, claim.token, b"\x01", 60_000, 60_000)) for claim in claims)
    )
    await asyncio.gather(*(store.submit(CompleteIfHeld(claim, b"", 0, 0)) for claim in claims))
    store.close()


def test_purge_of_an_unreachable_store_is_exit_code_3(run, tmp_path):
    """One sentence."""
    result = run("purge", "--store", f"sqlite:///{tmp_path}/nowhere/records.db")
    assert result.exit_code == 3
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("scheme", "advice"),
    [
        ("postgresql", "is the server running, and is the URL right?"),
        ("mysql", "look whether the server is up and can be reached"),
        ("redis", "Look at the server and at the network"),
    ],
)
def test_a_server_that_is_down(scheme, advice, run):
    """It says where it looked, what came of it and what to do, and not the password."""
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{nobody_listens.getsockname()[1]}"
        result = run("stats", "--store", f"{scheme}://shop:hunter2@{host}/0")
    assert (result.exit_code, result.stdout) == (3, "")
    assert len(result.stderr.splitlines()) == 1
    assert host in result.stderr
    assert advice in result.stderr
    assert "hunter2" not in result.stderr


def test_version_is_the_packages():
    """As `python -m retrysafe`, too."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    done = subprocess.run(
        [sys.executable, "-m", "retrysafe", "version"], capture_output=True, text=True, env=environment(), check=True
    )
    assert done.stdout == f"retrysafe {declared}\n"


def test_version_as_an_option(run):
    """`--version` says what `version` says."""
    assert run("--version").stdout == run("version").stdout


@pytest.mark.parametrize("group", [(), ("keys",), ("config",)])
def test_each_command_is_explained_in_a_whole_line(run, group):
    """On a terminal of 80 columns no command's line is cut."""
    listed = run(*group, "--help", COLUMNS="80").stdout.partition("Commands:")[2]
    assert listed
    assert "..." not in listed


_WITHOUT = """
import sys

missing = sys.argv.pop(1)

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == missing:
            raise ModuleNotFoundError(f"no module named {name!r}", name=name)

sys.meta_path.insert(0, Without())
from retrysafe.cli import main
main(prog_name="retrysafe")
"""


@pytest.mark.parametrize(
    ("missing", "extra", "arguments"),
    [
        ("click", "cli", ("version",)),
        ("cryptography", "crypto", ("keys", "rotate", "--store", "memory://")),
        ("aiohttp", "gateway", ("serve", *ENOUGH)),
        ("uvicorn", "gateway", ("serve", *ENOUGH)),
        ("httptools", "gateway", ("serve", *ENOUGH)),
        ("rich", "cli", ("demo",)),
    ],
)
def test_a_missing_extra_is_named(missing, extra, arguments, tmp_path):
    """One sentence that says what to install, and the exit code of a configuration."""
    command = [sys.executable, "-c", _WITHOUT, missing, *arguments]
    keys = {"RETRYSAFE_ENCRYPTION_KEYS": "ab" * 32} if extra == "crypto" else {}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(**keys), cwd=tmp_path, timeout=20, check=False
    )
    assert done.returncode == 2, done.stderr
    assert f'pip install "retrysafe[{extra}]"' in done.stderr
    assert len(done.stderr.splitlines()) == 1
