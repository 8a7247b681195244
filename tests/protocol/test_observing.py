"""What a request would have been under protection: judged like there, among records that never meet its own."""

from __future__ import annotations

from typing import Any

import pytest

from retrysafe import Policy
from retrysafe.drive.step import first, sent
from retrysafe.errors import StoreUnusable
from retrysafe.model import BytesBody, Head, Request, Response, State
from retrysafe.protocol.effects import Answered, Broken, Cancelled, Fate, Raised
from retrysafe.protocol.key import Key, record_id
from retrysafe.protocol.observing import (
    Place,
    RouteCounts,
    Seen,
    Sight,
    added,
    decoded,
    encoded,
    is_observed,
    note_end,
    observed_id,
    observed_route,
    see,
)
from retrysafe.protocol.transitions import Read
from retrysafe.stores.memory import MemoryStore
from tests.drive.harness import ManualClock

POLICY = Policy(lifetime="1h", tombstone="1d", execution_max="2m")
DAY_MS = 86_400_000


class Watch:
    """Sees requests one by one, over a store with a clock of the test's own."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        self.place = Place("default", self.store.open(), None)
        self.tokens = 0

    def run(self, flow):
        """A flow of nothing but transitions."""
        step: Any = first(flow)
        while not isinstance(step, tuple | None):
            step = sent(flow, self.store.perform(step))
        return step

    def see(self, content=b"{}", key="k-1", policy=POLICY, scope="alice"):
        """One request; what it is, and what its end is noted with."""
        self.tokens += 1
        head = Head("POST", b"/orders", b"", ((b"content-type", b"application/json"),))
        request = Request(head, BytesBody(content))
        return self.run(see(Seen(request, Key(key), scope, policy, "*", b"%016d" % self.tokens), self.place))

    def end(self, claim, ended=None, policy=POLICY):
        """Its end."""
        head = Head("POST", b"/orders", b"", ())
        self.run(note_end(claim, ended or answered(201), head, policy, self.place))

    def state(self):
        """Of the record of the key `k-1`."""
        found = self.store.perform(Read(observed_id(self.place, "alice", Key("k-1"))))
        return None if found is None else found.record.state


def answered(status, *headers):
    return Answered(Response(status, headers), whole=True, size=0, digest=b"", fate=Fate.RAN)


def test_from_the_first_attempt_to_the_end_of_the_tombstone():
    """In flight, replayed, expired, and new again; another request under the key in each state."""
    watch = Watch()
    sight, claim = watch.see()
    assert (sight, watch.see()[0], watch.see(b"[]")[0]) == (Sight.FIRST, Sight.IN_FLIGHT, Sight.MISMATCH)
    watch.end(claim)
    assert (watch.see(b" {} "), watch.see(b"[]")) == ((Sight.REPLAYED, None), (Sight.MISMATCH, None))
    assert (watch.see(scope="bob")[0], watch.see(key="k-2")[0]) == (Sight.FIRST, Sight.FIRST)
    watch.clock.now_ms += 3_600_000
    assert watch.see()[0] is Sight.EXPIRED
    watch.clock.now_ms += DAY_MS
    assert watch.see()[0] is Sight.FIRST


def test_an_attempt_that_was_never_seen_to_end():
    """Its duplicates are what they were, when its lease is over too; whether another would run again or not."""
    watch = Watch()
    _, claim = watch.see()
    for ended in (Broken(), Cancelled(Fate.RAN)):
        watch.end(claim, ended)
    watch.clock.now_ms += POLICY.execution_max_ms
    assert watch.see()[0] is Sight.IN_FLIGHT
    assert watch.see(policy=Policy(recovery="rerun"))[0] is Sight.IN_FLIGHT


@pytest.mark.parametrize(
    ("ended", "state"),
    [
        (answered(201), State.COMPLETED), (answered(500), State.COMPLETED), (Raised(Fate.RAN), State.COMPLETED),
        (answered(429), State.RETRYABLE), (Raised(Fate.NOT_REACHED), None),
        (answered(307, (b"location", b"/orders/")), None), (answered(307, (b"location", b"/x")), State.COMPLETED),
    ],
)  # fmt: skip
def test_an_end_is_judged_as_under_protection(ended, state):
    """What protection would record, release or discard; `classify` is not asked, for want of what it judges by."""
    watch = Watch()
    policy = Policy(classify=lambda _: pytest.fail("it was asked"))
    _, claim = watch.see(policy=policy)
    watch.end(claim, ended, policy)
    assert watch.state() is state
    assert watch.see()[0] is (Sight.REPLAYED if state is State.COMPLETED else Sight.FIRST)


def test_a_second_attempt_is_no_new_record():
    """What was released is claimed again, and is not forgotten by a redirect."""
    watch = Watch()
    watch.end(watch.see()[1], answered(429))
    sight, claim = watch.see()
    assert (sight, claim.attempt) == (Sight.FIRST, 2)
    watch.end(claim, answered(307, (b"location", b"/orders/")))
    assert watch.state() is State.RETRYABLE


def test_observed_records_are_of_another_namespace():
    """Whatever a namespace is called, an id of protection is never one of observing; and their routes say so."""
    place = Place("default", b"s" * 32, None)
    observed = observed_id(place, "alice", Key("k-1"))
    assert all(observed != record_id(place.secret, name, "alice", Key("k-1")) for name in ("default", "observed", ""))
    assert observed != observed_id(Place("other", place.secret, None), "alice", Key("k-1"))
    assert is_observed(observed_route("*"))
    assert len(observed_route("POST /" + "x" * 249)) == 255
    assert not any(map(is_observed, ("*", "POST /observed", "observed.job")))


def test_counts_as_they_are_stored():
    """They come back as they were; those of many processes are added; another version is refused."""
    one = RouteCounts("*", {Sight.FIRST: 2, Sight.LOST: 1}, 10, 30)
    two = RouteCounts("*", {Sight.FIRST: 3, Sight.REPLAYED: 4}, 5, 20)
    other = RouteCounts("POST /a", {Sight.MISSING: 1}, 1, 1)
    assert decoded(encoded([other, one])) == (other, one)
    star, last = added([other, one, two])
    assert (last, star.first_seen_ms, star.last_seen_ms, star.requests) == (other, 5, 30, 10)
    assert (star.of(Sight.FIRST), star.of(Sight.REPLAYED), star.of(Sight.LOST)) == (5, 4, 1)
    with pytest.raises(StoreUnusable, match="the release that wrote it"):
        decoded(b'{"version":2}')
