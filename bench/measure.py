"""One measurement: start the servers, prove them, warm them up, load them, stop them."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import load, proof, servers
from bench.cases import FIRST_PER_SECOND_SINGLY_MAX, RING, Case, Door
from bench.load import Keys, Load, SpoiltError
from bench.servers import Server, free_port, running, uvicorn

_WARM_UP_S = 1


@dataclass(frozen=True, slots=True)
class Sample:
    """What one measurement found.

    Attributes:
        load: what wrk saw.
        cpu_us: processor time of the server in front, for each answer.
        resident_mib: memory of the server in front, at the end.
        foreign: share of both cores that went to processes that are none of ours.
    """

    load: Load
    cpu_us: float
    resident_mib: float
    foreign: float


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
    """

    folder: Path
    slow_fsync: Path
    seconds: int

    def measure(self, case: Case) -> Sample:
        """Do it once, on servers and files of its own.

        Raises:
            SpoiltError: something answered wrongly.
        """
        with TemporaryDirectory(dir=self.folder) as folder, self._serving(case, Path(folder)) as place:
            _prove(case, place)
            keys = _warm_up(case, place)
            sample = self._sample(case, place, keys)
        if case.door is Door.ONE_COMMIT and sample.load.per_second > FIRST_PER_SECOND_SINGLY_MAX:
            raise SpoiltError(
                f"{case.name}: {sample.load.per_second:.0f} a second; the store does not wait for the disk"
            )
        return sample

    def _sample(self, case: Case, place: Place, keys: Keys) -> Sample:
        ran, busy_s, cpu_s, own_s = proof.runs(place.application), _busy_s(), place.front.cpu_s(), _own_s(place)
        seconds = max(self.seconds, case.seconds_min)
        seen = load.fire(place.front.url, keys=keys, concurrency=case.concurrency, seconds=seconds)
        cpu_s, own_s, busy_s = place.front.cpu_s() - cpu_s, _own_s(place) - own_s, _busy_s() - busy_s
        proof.prove_runs(proof.runs(place.application) - ran, seen, replays=case.replays, concurrency=case.concurrency)
        return Sample(
            load=seen,
            cpu_us=cpu_s * 1e6 / seen.requests,
            resident_mib=place.front.resident_mib(),
            foreign=max(0.0, (busy_s - own_s) / (2 * seconds)),
        )

    @contextmanager
    def _serving(self, case: Case, folder: Path) -> Iterator[Place]:
        settings = {"BENCH_DATABASE": str(folder / "records.db")}
        if case.slow_fsync:
            settings["LD_PRELOAD"] = str(self.slow_fsync)
        port = free_port()
        if not case.door.apart:
            with running(uvicorn(case.door, port), port, core=servers.CORE, folder=folder, settings=settings) as only:
                yield Place(only, only)
            return
        behind = free_port()
        command = uvicorn(Door.BARE, behind)
        with running(command, behind, core=load.CORE, folder=folder, settings={}) as application:
            settings["BENCH_UPSTREAM"] = application.url
            command = _in_front(case.door, port, application, folder)
            with running(command, port, core=servers.CORE, folder=folder, settings=settings) as front:
                yield Place(front, application)


def _in_front(door: Door, port: int, application: Server, folder: Path) -> list[str]:
    if door is Door.PASS_THROUGH:
        return [*uvicorn(door, port), "--no-date-header", "--no-server-header"]
    return [
        *(sys.executable, "-m", "retrysafe", "serve", "--upstream", application.url),
        *("--listen", f"127.0.0.1:{port}", "--store", f"sqlite:///{folder}/records.db"),
        *("--scope", "header:X-Account-Id"),
    ]


def _prove(case: Case, place: Place) -> None:
    if case.door.protects:
        proof.prove_protected(place.front, place.application)
    else:
        proof.prove_unprotected(place.front, place.application)


def _warm_up(case: Case, place: Place) -> Keys:
    """Load the servers for a moment, and say which keys the measurement is to use."""
    keys = Keys(RING if case.replays else 0)
    if case.replays:
        proof.record_all(place.front, keys)
    load.fire(place.front.url, keys=keys, concurrency=case.concurrency, seconds=max(_WARM_UP_S, case.seconds_min))
    return keys if case.replays else Keys()


def _own_s(place: Place) -> float:
    """Processor time of our servers, of this process, and of every wrk that has ended."""
    servers_s = sum(server.cpu_s() for server in {place.front, place.application})
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return servers_s + sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _busy_s() -> float:
    """Processor time that processes have used since the machine started, and that was stolen from it."""
    user, nice, system, _idle, _wait, _irq, _softirq, steal = (
        int(ticks) for ticks in Path("/proc/stat").read_text(encoding="ascii").split(maxsplit=9)[1:9]
    )
    return (user + nice + system + steal) / servers.TICKS_PER_SECOND
