"""One measurement: start the servers, prove them, warm them up, load them, stop them."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import calls, counts, growth, load, proof, servers
from bench.cases import BARE, PASS_THROUGH, RING, SINGLY, Case, Door, Group, Work
from bench.engines import Database, Engine, Engines, PostgresDatabase
from bench.environments import IDEMKIT
from bench.load import Keys, Load, SpoiltError
from bench.results import Count, Found, Sample
from bench.servers import Server, free_port, gunicorn, running, uvicorn

_WARM_UP_S = 1

# A first request is two transitions, so with an fsync of at least 1 ms each, one by one, there are
# fewer than this many in a second. More would mean that the store does not wait for the disk.
FIRST_PER_SECOND_SINGLY_MAX = 500


@dataclass(frozen=True, slots=True)
class Place:
    """The servers of one case: the one that is loaded, and the one that the application runs in."""

    front: Server
    application: Server


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where measurements are made.

    Attributes:
        folder: for data and logs; on the disk that is measured.
        slow_fsync: the shim to preload.
        seconds: how long each measurement lasts.
        engines: the stores' servers.
        pythons: the interpreter of each peer, by its name.
        sizes: how many records `few` and `many` are.
        filled: databases that are kept from one round to the next, because it takes long to fill them.
    """

    folder: Path
    slow_fsync: Path
    seconds: int
    engines: Engines
    pythons: Mapping[str, Path]
    sizes: Mapping[str, int] = field(default_factory=lambda: growth.SIZES)
    filled: dict[str, Database] = field(default_factory=dict)

    def measure(self, case: Case) -> Found:
        """Do it once, on servers and records of its own.

        Raises:
            SpoiltError: something answered wrongly; of a peer, that is what was found.
        """
        with TemporaryDirectory(dir=self.folder) as name:
            folder = Path(name)
            database = self._database(case, folder)
            try:
                match case.work:
                    case Work.LOAD:
                        return self._loaded(case, folder, database)
                    case Work.CALLS:
                        return self._called(case, folder)
                    case Work.TRIPS:
                        return self._trips(case, folder, database)
                    case Work.SIZE:
                        return self._size(case, folder, database)
            finally:
                if database not in self.filled.values():
                    database.discard()

    def _loaded(self, case: Case, folder: Path, database: Database) -> Sample:
        peer = case.door.peer
        try:
            if peer is IDEMKIT and case.door.engine is Engine.POSTGRES:
                _tell(str(self.pythons[peer.name].with_name("idemkit")), "init-pg", database.url)
            with self._serving(case, folder, database) as place:
                wrong = _prove(case, place)
                keys = _warm_up(case, place)
                sample = self._sample(case, place, keys, wrong)
        except SpoiltError as error:
            if peer is None:
                raise SpoiltError(f"{case.name}: {error}") from error
            return Sample(0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, _said(error))
        if case.door is SINGLY and sample.per_second > FIRST_PER_SECOND_SINGLY_MAX:
            raise SpoiltError(f"{case.name}: {sample.per_second:.0f} a second; the store does not wait for the disk")
        return sample

    def _sample(self, case: Case, place: Place, keys: Keys, wrong: list[str]) -> Sample:
        ran, busy_s, cpu_s, own_s = proof.runs(place.application), _busy_s(), place.front.cpu_s(), self._own_s(place)
        seconds = max(self.seconds, case.seconds_min)
        seen = load.fire(place.front.url, keys=keys, concurrency=case.concurrency, seconds=seconds)
        cpu_s, own_s, busy_s = place.front.cpu_s() - cpu_s, self._own_s(place) - own_s, _busy_s() - busy_s
        if seen.failed and not case.may_fail:
            raise SpoiltError(f"{seen.failed} failed, and {seen.requests} were answered")
        wrong = wrong + _wrong_runs(case, seen, proof.runs(place.application) - ran)
        return Sample(
            requests=seen.requests,
            failed=seen.failed,
            per_second=seen.per_second,
            p50_us=seen.p50_us,
            p99_us=seen.p99_us,
            cpu_us=cpu_s * 1e6 / seen.requests,
            resident_mib=place.front.resident_mib(),
            foreign=max(0.0, (busy_s - own_s) / (2 * seconds)),
            wrong=wrong,
        )

    def _called(self, case: Case, folder: Path) -> Sample:
        """The calls of a client in a process of its own, where servers are measured; the server is where loads are."""
        assert case.caller is not None, "somebody has to call"
        port = free_port()
        with running(uvicorn(case.door.factory, port), port, core=load.CORE, folder=folder, settings={}) as server:
            began_s, busy_s, own_s = time.monotonic(), _busy_s(), self._own_s(Place(server, server))
            seen = calls.fire(server.url, case.caller, folder=folder, core=servers.CORE, seconds=self.seconds)
            own_s, busy_s = self._own_s(Place(server, server)) - own_s, _busy_s() - busy_s
            elapsed_s = time.monotonic() - began_s
            calls.prove(server, case.caller, seen)
        return Sample(
            requests=seen.requests,
            failed=0,
            per_second=seen.per_second,
            p50_us=seen.p50_us,
            p99_us=seen.p99_us,
            cpu_us=seen.cpu_us,
            resident_mib=seen.resident_mib,
            foreign=max(0.0, (busy_s - own_s) / (2 * elapsed_s)),
        )

    def _trips(self, case: Case, folder: Path, database: Database) -> Count:
        database.count_trips()
        with self._serving(case, folder, database) as place:
            return Count(counts.trips(database, place.front, replays=case.replays))

    def _size(self, case: Case, folder: Path, database: Database) -> Count:
        settings = {"BENCH_ANSWER_BYTES": str(counts.RESPONSE_BYTES)}
        sizes, records = [], 0
        for _ in range(2):  # what was made ready once, and space that is free again, is in the first of them
            with self._serving(case, folder, database, settings) as place:
                ran = proof.runs(place.application)
                counts.fill(place.front, concurrency=case.concurrency, seconds=self.seconds)
                records = proof.runs(place.application) - ran
            sizes.append(database.size_bytes())
        return Count((sizes[1] - sizes[0]) / records)

    def _database(self, case: Case, folder: Path) -> Database:
        if case.live in self.filled:
            return self.filled[case.live]
        database = self.engines.database(case.door.engine, folder, slow=case.slow_fsync)
        if case.live:
            assert isinstance(database, PostgresDatabase), "only these are filled"
            with self._serving(case, folder, database) as place:
                proof.record_all(place.front, Keys(ring=1))
            growth.fill(database, self.sizes[case.live])
            if self.sizes[case.live] > self.sizes["few"]:
                self.filled[case.live] = database
        return database

    @contextmanager
    def _serving(
        self, case: Case, folder: Path, database: Database, more: Mapping[str, str] | None = None
    ) -> Iterator[Place]:
        settings = {"BENCH_STORE": database.url, **(more or {})}
        if case.slow_fsync and case.door.engine is Engine.SQLITE:
            settings["LD_PRELOAD"] = str(self.slow_fsync)
        port, peer = free_port(), case.door.peer
        if not case.door.apart:
            python = self.pythons[peer.name] if peer else sys.executable
            factory = case.door.factory
            command = gunicorn(factory, port) if case.door.blocking else uvicorn(factory, port, python)
            with running(
                command, port, core=servers.CORE, folder=folder, settings=settings, strict=peer is None
            ) as only:
                yield Place(only, only)
            return
        behind = free_port()
        command = uvicorn(BARE.factory, behind)
        with running(command, behind, core=load.CORE, folder=folder, settings={}) as application:
            settings["BENCH_UPSTREAM"] = application.url
            command = _in_front(case.door, port, application, database)
            with running(command, port, core=servers.CORE, folder=folder, settings=settings) as front:
                yield Place(front, application)

    def _own_s(self, place: Place) -> float:
        """Processor time of our servers, of the stores', of this process, and of every wrk that has ended."""
        servers_s = sum(server.cpu_s() for server in {place.front, place.application})
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return self.engines.cpu_s() + servers_s + sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _in_front(door: Door, port: int, application: Server, database: Database) -> list[str]:
    if door is PASS_THROUGH:
        return [*uvicorn(door.factory, port), "--no-date-header", "--no-server-header"]
    return [
        *(sys.executable, "-m", "retrysafe", "serve", "--upstream", application.url),
        *("--listen", f"127.0.0.1:{port}", "--store", database.url, "--scope", "header:X-Account-Id"),
    ]


def _prove(case: Case, place: Place) -> list[str]:
    """What a peer did not pass. What is ours passes all, or it is not measured."""
    if not case.door.protects:
        proof.prove_unprotected(place.front, place.application)
        return []
    wrong = list(proof.failed_checks(place.front, place.application, ours=case.door.peer is None, quoted=_quoted(case)))
    if wrong and case.door.peer is None:
        raise SpoiltError("; ".join(wrong))
    return wrong


def _said(error: SpoiltError) -> tuple[str, ...]:
    """What went wrong, and the last line that the server wrote of it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return tuple(dict.fromkeys([lines[0], lines[-1]]))


def _quoted(case: Case) -> bool:
    """Not all peers know that a key may be quoted, so beside them no key is."""
    return case.group is not Group.PEERS


def _wrong_runs(case: Case, seen: Load, count: int) -> list[str]:
    try:
        proof.prove_runs(count, seen, replays=case.replays, concurrency=case.concurrency)
    except SpoiltError as error:
        if case.door.peer is None:
            raise
        return [str(error)]
    return []


def _warm_up(case: Case, place: Place) -> Keys:
    """Load the servers for a moment, and say which keys the measurement is to use."""
    keys = Keys(RING if case.replays else 0, _quoted(case))
    if case.replays:
        proof.record_all(place.front, keys)
    load.fire(place.front.url, keys=keys, concurrency=case.concurrency, seconds=max(_WARM_UP_S, case.seconds_min))
    return keys if case.replays else Keys(quoted=_quoted(case))


def _tell(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SpoiltError(f"{command[0]} failed: {done.stderr.strip()}")


def _busy_s() -> float:
    """Processor time that processes have used since the machine started, and that was stolen from it."""
    user, nice, system, _idle, _wait, _irq, _softirq, steal = (
        int(ticks) for ticks in Path("/proc/stat").read_text(encoding="ascii").split(maxsplit=9)[1:9]
    )
    return (user + nice + system + steal) / servers.TICKS_PER_SECOND
