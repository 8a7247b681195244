"""`retrysafe lab proxy`, as its user runs it: a process in front of a server, until it is told to end."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from contextlib import closing

from click.testing import CliRunner

from retrysafe.cli import main
from retrysafe.lab.mutants.correct import Server
from tests.gateway.processes import environment
from tests.verify.serving import serving

REQUEST = b"GET /orders?reference=1 HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer alice\r\nConnection: close\r\n\r\n"


def ask(address):
    """What comes back of one request."""
    host, port = address.split(":")
    answer = b""
    with closing(socket.create_connection((host, int(port)), timeout=10)) as connection:
        connection.sendall(REQUEST)
        while piece := connection.recv(65_536):
            answer += piece
    return answer


def test_exchanges_and_their_faults():
    """The same seed gives the same fault to the same exchange; how many met what is said in the end."""
    words = ["--fault", "lose-response@40%", "--fault", "delay:1ms@20%", "--seed", "3", "--json"]
    with serving(Server()) as url:
        command = [sys.executable, "-m", "retrysafe", "lab", "proxy", "--to", url.removeprefix("http://"), *words]
        met = []
        for _ in range(2):
            with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), text=True) as process:
                assert process.stdout is not None
                address = json.loads(process.stdout.readline())["listens"]
                answered = [bool(ask(address)) for _ in range(12)]
                process.send_signal(signal.SIGINT)
                lines = [json.loads(line) for line in process.stdout]
            assert process.returncode == 0
            faults = [line["fault"] for line in lines[:-1]]
            assert answered == [fault != "lose-response" for fault in faults]
            assert lines[-1] == {"exchanges": 12, "met": {fault: faults.count(fault) for fault in faults}}
            met.append(faults)
    assert met[0] == met[1]
    assert set(met[0]) == {"nothing", "delay", "lose-response"}


def test_usage():
    """Whatever is wrong is said, all of it at once."""
    run = CliRunner().invoke
    wrong = run(main, ["lab", "proxy", "--to", "127.0.0.1:1", "--fault", "flood", "--fault", "delay:x"])
    assert (wrong.exit_code, wrong.output.count("retrysafe: --fault")) == (2, 2)
    nowhere = run(main, ["lab", "proxy", "--to", "127.0.0.1:1", "--fault", "reset", "--listen", "here"])
    assert (nowhere.exit_code, "--listen takes HOST:PORT" in nowhere.output) == (2, True)
    odd = run(main, ["lab", "proxy", "--to", "amqp://127.0.0.1:1", "--fault", "reset"])
    assert (odd.exit_code, "no address that can be carried" in odd.output) == (2, True)
    twice = run(main, ["lab", "proxy", "--to", "redis://127.0.0.1:1", "--fault", "deliver-twice@5%"])
    assert (twice.exit_code, "only a request of HTTP" in twice.output) == (2, True)
