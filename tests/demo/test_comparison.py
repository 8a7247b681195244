from __future__ import annotations

import asyncio
import http.client
import os
import pty
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

import retrysafe.demo
from retrysafe.demo import comparison
from retrysafe.demo.shop import Shop
from retrysafe.demo.tally import arrivals
from retrysafe.errors import ConfigurationError

ORDERS = 30


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the demo keeps its data, to see what it leaves behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def row(printed: str, title: str) -> tuple[str, str]:
    """The two figures of one line of the table: bare, protected."""
    (line,) = (line for line in printed.splitlines() if line.startswith(f"{title}  "))
    bare, protected = line.removeprefix(title).split()
    return bare, protected


def test_the_bare_shop_charges_twice_and_the_protected_one_does_not(folder, capsys, monkeypatch):
    """The whole demo: real shops, the real gateway, a client that loses answers."""
    monkeypatch.setenv("NO_COLOR", "1")
    assert retrysafe.demo.run(ORDERS) == 0
    printed, shown = capsys.readouterr()
    duplicates, none = row(printed, "duplicates")
    assert int(duplicates) > 0
    assert none == "0"
    assert row(printed, "orders") == row(printed, "charges") == (str(ORDERS + int(duplicates)), str(ORDERS))
    assert row(printed, "orders missing") == ("0", "0")
    _, left = row(printed, "stock left")
    assert row(printed, "stock that should be left")[1] == left
    _, sent = row(printed, "requests that were sent whole")
    assert row(printed, "requests that reached the shop")[1] == str(ORDERS)
    assert f"duplicates suppressed: {int(sent) - ORDERS} " in printed
    assert "curl" not in printed
    assert "\x1b" not in printed + shown
    assert list(folder.iterdir()) == []


def test_a_protected_shop_with_a_duplicate_is_exit_code_1(folder, capsys, monkeypatch):
    """With the shop itself where the gateway should be, the demo says what is wrong and fails."""

    @contextmanager
    def no_gateway(_, shop):
        yield shop

    monkeypatch.setattr(comparison, "_gateway", no_gateway)
    assert retrysafe.demo.run(ORDERS) == 1
    printed, _ = capsys.readouterr()
    assert re.search(r"The protected shop charged \d+ times too often", printed)
    assert list(folder.iterdir()) == []


def test_a_missing_extra_is_named():
    """Without the gateway's libraries there is no demo, and the error says what to install."""
    with pytest.raises(ConfigurationError, match=r'needs no_such_library: pip install "retrysafe\[gateway\]"'):
        comparison._require("asyncio", "no_such_library")


def test_the_tally_waits_for_requests_that_are_still_on_their_way(tmp_path, monkeypatch):
    """What was sent and then cut is counted, though nobody waits for its answer."""
    monkeypatch.setattr(comparison, "_QUIET_MS", 50)
    database = tmp_path / "shop.db"
    shop = Shop(database, 1)

    async def arrive() -> None:
        for number in range(5):
            await asyncio.sleep(0.02)
            shop.note_request(f"order-{number}")

    async def scene() -> int:
        arriving = asyncio.create_task(arrive())
        await comparison._quiet([database])
        counted = arrivals(database)
        await arriving
        return counted

    assert asyncio.run(scene()) == 5
    shop.close()


# Ctrl-C reaches every process of a terminal, `kill` only the one that is named.
@pytest.mark.parametrize(
    ("end", "number", "code"), [(os.killpg, signal.SIGINT, 0), (os.kill, signal.SIGTERM, 128 + signal.SIGTERM)]
)
def test_on_a_terminal_it_stays_open_until_it_is_told_to_end(tmp_path, end, number, code):
    """Both addresses answer, the two lines do what is said of them, and afterwards nothing is left."""
    terminal, standard = pty.openpty()
    program = "import sys, retrysafe.demo; sys.exit(retrysafe.demo.run(10))"
    environment = {**os.environ, "TMPDIR": str(tmp_path), "NO_COLOR": "1", "TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=standard, stderr=standard, env=environment, start_new_session=True
    ) as demo:
        os.close(standard)
        printed = read_until(terminal, "Ctrl-C")
        protected, bare = re.findall(r"curl -i .*(?=\r)", printed)
        assert [send(protected), send(protected)] == [(201, None), (201, "true")]
        assert [send(bare), send(bare)] == [(201, None), (201, None)]
        end(demo.pid, number)
        assert demo.wait(20) == code, printed
    os.close(terminal)
    assert "/10" in printed  # a bar
    assert not re.search(r"\x1b\[[0-9;]*3\dm", printed)  # and no colour
    assert list(tmp_path.iterdir()) == []
    for command in (protected, bare):
        address = urlsplit(shlex.split(command)[2])
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address.hostname, address.port), timeout=1).close()


def read_until(terminal: int, last: str) -> str:
    """What appears on a terminal, up to `last`."""
    printed = b""
    while last.encode() not in printed:
        assert select.select([terminal], [], [], 20)[0], printed.decode()
        printed += os.read(terminal, 4_096)
    return printed.decode()


def send(command: str) -> tuple[int, str | None]:
    """Do what a printed line for `curl` says; the status, and whether it was a replay."""
    words = shlex.split(command)
    assert words[:2] == ["curl", "-i"]
    address = urlsplit(words[2])
    options = list(zip(words[3::2], words[4::2], strict=True))
    headers = dict(value.split(": ") for option, value in options if option == "-H")
    (body,) = (value for option, value in options if option == "-d")
    connection = http.client.HTTPConnection(address.netloc, timeout=10)
    connection.request("POST", address.path, body, headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, answer.getheader("Idempotent-Replayed")
