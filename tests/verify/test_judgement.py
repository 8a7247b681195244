"""What the verifier says when it cannot say: races that did not overlap, windows that were missed, other profiles."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

import pytest

from retrysafe.lab.mutants.correct import Server
from retrysafe.lab.mutants.http import problem
from retrysafe.lab.mutants.serving import run_of, serving
from retrysafe.lab.mutants.shop import Died
from retrysafe.verify.probe import Run
from retrysafe.verify.profile import load
from retrysafe.verify.runner import run_cases
from retrysafe.verify.selection import select
from retrysafe.verify.verdict import Verdict


def results(server, *ids, change=lambda run: run):
    """What these cases say of a server; `change` makes another run of the laboratory's."""

    async def scene():
        async with serving(server, server.replica(), server.sandbox()) as addresses:
            run = change(run_of(server, *addresses))
            return {result.case.id: result for result in await run_cases(run, select(ids))}

    return asyncio.run(scene())


class OneAfterTheOther(Server):
    """Answers a connection before it looks at the next one."""

    async def respond(self, request):
        """Without a chance for anybody else."""
        coroutine = super().respond(request)
        try:
            while True:
                coroutine.send(None)
        except StopIteration as done:
            return done.value


def test_a_race_that_is_none():
    """One connection at a time: the requests still overlap on the wire, so that the case says something."""
    assert results(OneAfterTheOther(), "CON-01")["CON-01"].verdict is Verdict.PASS


def test_a_race_that_did_not_overlap():
    """If no two requests were ever at the target together, the case is inconclusive, whatever was answered."""

    def one_at_a_time(run: Run) -> Run:
        run.settings = replace(run.settings, width=1)
        return run

    result = results(Server(), "CON-01", change=one_at_a_time)["CON-01"]
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "in 20 rounds" in result.reason


class BusyForAWhile(Server):
    """Took longer over used keys of others, as long as something else was going on."""

    def __init__(self) -> None:
        super().__init__()
        self.busy_for = run_of(self, *["http://127.0.0.1"] * 3).settings.samples

    async def find(self, identity):
        """What was found, later for as long as it is busy."""
        account, key = identity
        if self.busy_for and any(owner != account and other == key for owner, other in self.records):
            self.busy_for -= 1
            await asyncio.sleep(0.01)
        return await super().find(identity)


def test_a_difference_that_does_not_come_again():
    """A machine that was busy for a while is no server that tells which keys were used."""
    server = BusyForAWhile()
    result = results(server, "SEC-12")["SEC-12"]
    assert server.busy_for == 0
    assert result.verdict is Verdict.PASS


def test_a_window_that_was_missed():
    """A slow operation that is not slow shows nothing about what is in flight."""

    def not_slow(run: Run) -> Run:
        operations = {**run.target.operations, "slow": run.target.operation}
        run.target = replace(run.target, operations=operations)
        return run

    result = results(Server(), "CON-02", change=not_slow)["CON-02"]
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "over at once" in result.reason


def test_a_lifetime_that_had_passed():
    """A machine that slept through the lifetime makes the case inconclusive, and no finding of it."""

    def shorter(run: Run) -> Run:
        run.target = replace(run.target, lifetime_s=0.0001)
        return run

    assert results(Server(), "TTL-02", change=shorter)["TTL-02"].verdict is Verdict.INCONCLUSIVE


def test_dated_keys():
    """A server that does not look at the time in a key is found by the profile that demands it."""

    def iceberg(run: Run) -> Run:
        run.profile = load("iceberg")
        return run

    assert results(Server(), "TTL-05", change=iceberg)["TTL-05"].verdict is Verdict.FAIL


class Stripe(Server):
    """Speaks as Stripe does: bare keys, 400 for a reuse, and its own shape of errors."""

    def unquoted(self, value):
        """Bare keys, and quotes are nothing to it."""
        return value if '"' not in value else None

    def mismatch(self, record):
        """400."""
        return _error(400, "idempotency_error", "idempotency_error")

    def in_progress(self):
        """409, with its code and no field."""
        return _error(409, "invalid_request_error", "idempotency_key_in_use")

    def required(self, request):
        """Never."""
        return False


def _error(status, kind, code):
    answer = problem(status, code)
    return replace(
        answer,
        headers=(("content-type", "application/json"),),
        body=json.dumps({"error": {"type": kind, "code": code}}).encode(),
    )


@pytest.mark.parametrize("profile", ["stripe-v1", "ietf"])
def test_a_profile_decides(profile):
    """What one provider documents, another profile finds wrong."""

    def with_profile(run: Run) -> Run:
        run.profile = load(profile)
        return run

    ids = ("SYN-01", "SYN-02", "REP-01", "FPR-01", "FPR-02", "FPR-05", "CON-02", "CON-03", "CON-04")
    got = results(Stripe(), *ids, change=with_profile)
    if profile == "ietf":
        assert got["SYN-01"].verdict is Verdict.FAIL
        assert got["FPR-01"].verdict is Verdict.INCONCLUSIVE
    else:
        assert not {id_: result.findings for id_, result in got.items() if result.findings}
        assert got["FPR-01"].verdict is got["CON-02"].verdict is Verdict.PASS


class KeyInContent(Server):
    """Takes the key from the content, as Square does."""

    async def keyed(self, request, handler):
        """Move it to where the rest looks for it."""
        document = request.json()
        if isinstance(document, dict) and "idempotency_key" in document:
            moved = (*request.headers, ("idempotency-key", str(document.pop("idempotency_key"))))
            request = replace(request, headers=moved, body=json.dumps(document).encode())
        return await super().keyed(request, handler)

    def mismatch(self, record):
        """400 with Square's code."""
        return _error(400, "INVALID_REQUEST_ERROR", "IDEMPOTENCY_KEY_REUSED")


def test_a_key_in_the_content():
    """A profile may carry the key in the content; cases about its spelling in a field are skipped, with the reason."""

    def square(run: Run) -> Run:
        run.profile = load("square")
        return run

    got = results(KeyInContent(), "REP-01", "FPR-01", "SYN-01", "CON-01", change=square)
    assert {id_: result.verdict for id_, result in got.items()} == {
        "REP-01": Verdict.PASS,
        "FPR-01": Verdict.PASS,
        "SYN-01": Verdict.SKIP,
        "CON-01": Verdict.PASS,
    }
    assert "content" in got["SYN-01"].reason


class Killable(Server):
    """A server whose workers can be killed, and whose permissions are a file."""

    def __init__(self, place):
        super().__init__()
        self.place = place
        self.killed = asyncio.Event()

    def sandbox(self):
        """Not of this kind."""
        return Server()

    def switch(self, name):
        """Kill whoever is at work."""
        if name == "kill":
            self.killed.set()
            self.killed = asyncio.Event()
        return super().switch(name)

    async def safely(self, handler, request):
        """The work, until it is done or the worker is dead."""
        work = asyncio.create_task(super().safely(handler, request))
        killed = asyncio.create_task(self.killed.wait())
        await asyncio.wait([work, killed], return_when=asyncio.FIRST_COMPLETED)
        killed.cancel()
        if work.done():
            return work.result()
        work.cancel()
        raise Died

    def forbidden(self, account):
        """As the file says."""
        return (self.place / "revoked").exists()


def test_hooks(tmp_path):
    """A hook is a request or a command; a worker is killed by one while a slow operation is at work."""

    def with_hooks(run: Run) -> Run:
        operations = {name: each for name, each in run.target.operations.items() if not name.startswith("die-")}
        hooks = {
            "kill": "POST /lab/kill",
            "revoke": f"cmd touch {tmp_path / 'revoked'}",
            "restore": f"cmd rm {tmp_path / 'revoked'}",
        }
        run.target = replace(run.target, operations=operations, hooks=hooks)
        return run

    server = Killable(tmp_path)
    got = results(server, "OUT-08", "OUT-09", "SEC-06", "OUT-10", change=with_hooks)
    assert {id_: result.verdict for id_, result in got.items()} == {
        "OUT-08": Verdict.PASS,
        "OUT-09": Verdict.PASS,
        "SEC-06": Verdict.PASS,
        "OUT-10": Verdict.SKIP,
    }
    statuses = [step.answer.status for step in got["OUT-08"].steps]
    assert statuses[0] == 502
    assert statuses[-1] == 409
    assert [step.answer.status for step in got["SEC-06"].steps] == [201, 403]


def test_a_hook_that_fails():
    """A command that fails makes its case inconclusive, and says so."""

    def broken(run: Run) -> Run:
        run.target = replace(run.target, hooks={**run.target.hooks, "store-down": "cmd exit 7"})
        return run

    result = results(Server(), "OUT-10", change=broken)["OUT-10"]
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "exit code 7" in result.reason


def test_patience_has_an_end():
    """A case does not wait for ever for a final answer."""

    class NeverReady(Server):
        def replay(self, response, request):
            return problem(503, "later", ("retry-after", "1"))

    began_s = time.monotonic()
    result = results(NeverReady(), "REP-06")["REP-06"]
    assert result.verdict is Verdict.FAIL
    assert time.monotonic() - began_s < 60
