"""The clock of a service that tells the time only in the `Date` of its answers.

A condition of DynamoDB cannot ask what time it is, so whoever writes says what time it is. The clock of the
writer's host must not decide that: one that runs ahead would take every lease from its owner. The service
itself stamps each answer with its own time, to the second. Each such stamp was set between the moment when
the request went out and the moment when its answer was there, so it says within which bounds the service's
clock is ahead of this host's *monotonic* one, which nobody sets. The estimate is kept within the bounds of
the latest answer, starts at their lower end, and so is never ahead of the service by more than the monotonic
clock has drifted since that answer.
"""

from __future__ import annotations

import threading
import time
from email.utils import parsedate_to_datetime

from retrysafe.errors import StoreUnusable
from retrysafe.stores.clock import Clock, host_clock

HEARD_MS_MAX = 60_000  # in which a monotonic clock drifts by some milliseconds
STEP_MS_MAX = 1_000


def monotonic_clock() -> int:
    """Milliseconds since some moment; nobody sets it, and it may stand still while the machine sleeps."""
    return time.monotonic_ns() // 1_000_000


class ServiceClock:
    """The service's time in milliseconds, as far as its answers have told it. It never goes back.

    Args:
        monotonic: this host's clock that nobody sets, in milliseconds.
        host: this host's wall clock, in milliseconds. It decides nothing: where the two have not gone on by the
            same time, this process was asleep, and the service is asked again.
    """

    def __init__(self, monotonic: Clock = monotonic_clock, host: Clock = host_clock) -> None:
        self._monotonic = monotonic
        self._host = host
        self.restart()

    def restart(self) -> None:
        """Know nothing yet, as in a process that was forked from another."""
        self._lock = threading.Lock()
        self._ahead_ms: int | None = None  # how far the service's clock is ahead of the monotonic one
        self._heard_ms = (0, 0)  # by both clocks of this host
        self._told_ms = 0

    def sending(self) -> int:
        """When a request goes out; to be given back with the `Date` of its answer."""
        return self._monotonic()

    def notice(self, date: str, sent_ms: int) -> None:
        """Learn from an answer.

        Args:
            date: its `Date` field (RFC 9110, 6.6.1).
            sent_ms: what `sending` said before its request.
        """
        stamped_ms = int(parsedate_to_datetime(date).timestamp()) * 1_000
        received_ms = self._monotonic()
        least_ms, most_ms = stamped_ms - received_ms, stamped_ms + 999 - sent_ms
        with self._lock:
            ahead_ms = least_ms if self._ahead_ms is None else self._ahead_ms
            self._ahead_ms = min(max(ahead_ms, least_ms), most_ms)
            self._heard_ms = received_ms, self._host()

    def is_fresh(self) -> bool:
        """Was an answer heard lately, and has this process been awake since?"""
        with self._lock:
            if self._ahead_ms is None:
                return False
            gone_ms, host_gone_ms = self._monotonic() - self._heard_ms[0], self._host() - self._heard_ms[1]
        return gone_ms <= HEARD_MS_MAX and abs(host_gone_ms - gone_ms) <= STEP_MS_MAX

    def __call__(self) -> int:
        """The time in milliseconds."""
        with self._lock:
            if self._ahead_ms is None:
                raise StoreUnusable(
                    "the answers of this DynamoDB service have no Date, and it has no other clock; "
                    "remove what strips that field, or use the service itself"
                )
            self._told_ms = max(self._told_ms, self._monotonic() + self._ahead_ms)
            return self._told_ms
