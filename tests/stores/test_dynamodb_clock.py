"""The service's clock, as its answers tell it: nobody on this host can set it."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrysafe.errors import StoreUnusable
from retrysafe.stores.dynamodb_clock import HEARD_MS_MAX, ServiceClock
from retrysafe.testing import ManualClock

SERVICE_MS = 1_800_000_000_000


class Host:
    """A host, a service, and the network between them."""

    def __init__(self):
        self.monotonic = ManualClock(5_000)
        self.wall = ManualClock(1_000_000_000_000)  # years behind, and no matter
        self.service = ManualClock(SERVICE_MS)
        self.clock = ServiceClock(self.monotonic, self.wall)

    def advance(self, ms, drift_ms=0):
        """Time passes; the monotonic clock goes on by so much more."""
        self.monotonic.advance(ms + drift_ms)
        self.wall.advance(ms + drift_ms)
        self.service.advance(ms)

    def ask(self, there_ms=0, back_ms=0):
        """A request that takes so long there and back."""
        sent_ms = self.clock.sending()
        self.advance(there_ms)
        date = formatdate(self.service() / 1_000, usegmt=True)
        self.advance(back_ms)
        self.clock.notice(date, sent_ms)


def test_without_an_answer_there_is_no_time():
    """Before the service has said what time it is, nothing is guessed, least of all by the host's clock."""
    host = Host()
    assert not host.clock.is_fresh()
    with pytest.raises(StoreUnusable, match="no Date"):
        host.clock()


@given(st.lists(st.tuples(st.integers(0, 40_000), st.integers(0, 3_000), st.integers(0, 3_000)), min_size=1))
def test_it_is_the_services_time(requests):
    """However answers come, it is never ahead of the service, and behind by a second and the slowest reply at most."""
    host = Host()
    slowest_ms = 0
    for pause_ms, there_ms, back_ms in requests:
        host.advance(pause_ms)
        host.ask(there_ms, back_ms)
        slowest_ms = max(slowest_ms, back_ms)
        assert host.service() - 1_000 - slowest_ms <= host.clock() <= host.service()


@given(st.lists(st.tuples(st.integers(0, 40_000), st.integers(-40, 40)), min_size=1))
def test_a_clock_that_drifts_is_brought_back(requests):
    """A monotonic clock that runs too fast or too slow is corrected by every answer, and time never goes back."""
    host = Host()
    told = 0
    for pause_ms, drift_ms in requests:
        host.advance(pause_ms, drift_ms)
        host.ask(5, 5)
        assert host.service() - 1_020 <= host.clock() <= max(told, host.service() + 1_000)
        assert host.clock() >= told
        told = host.clock()


def test_the_hosts_clock_decides_nothing():
    """A host's clock that is set, by however much, moves no time; it only makes the service be asked again."""
    host = Host()
    host.ask()
    before_ms = host.clock()
    host.wall.advance(86_400_000)
    assert host.clock() == before_ms
    assert not host.clock.is_fresh()
    host.ask()
    assert host.clock.is_fresh()
    assert host.clock() == before_ms


def test_an_answer_is_fresh_for_a_while():
    """After a minute without an answer, and after a sleep in which one clock stood still, it is asked again."""
    host = Host()
    host.ask()
    host.advance(HEARD_MS_MAX)
    assert host.clock.is_fresh()
    host.advance(1)
    assert not host.clock.is_fresh()
    host.ask()
    host.wall.advance(10_000)
    assert not host.clock.is_fresh()


def test_it_never_goes_back():
    """A service whose clock steps back is followed once it has caught up with what was told."""
    host = Host()
    host.ask()
    before_ms = host.clock()
    host.service.advance(-60_000)
    host.ask()
    assert host.clock() == before_ms
    host.advance(59_000)
    assert host.clock() == before_ms
    host.advance(3_000)
    assert host.clock() > before_ms


def test_a_child_asks_anew():
    """What a process has heard is not known in one that was forked from it."""
    host = Host()
    host.ask()
    host.clock.restart()
    assert not host.clock.is_fresh()
