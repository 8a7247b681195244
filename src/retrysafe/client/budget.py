"""How many retries a process may make: a share of its operations, so that an outage is not met by a storm."""

from __future__ import annotations

import threading

from retrysafe.errors import ConfigurationError


class RetryBudget:
    """Each operation earns a share of a retry; each retry costs one.

    Args:
        share: how many retries an operation earns, 0.1 for one in ten.
        reserve: how many may be made beyond what was earned, and how many can be saved at most.

    Raises:
        ConfigurationError: one of them is negative.
    """

    def __init__(self, share: float = 0.1, reserve: float = 10.0) -> None:
        if share < 0 or reserve < 0:
            raise ConfigurationError([f"a retry budget of share={share}, reserve={reserve}; neither may be negative"])
        self._share = share
        self._reserve = reserve
        self._left = reserve
        self._lock = threading.Lock()

    def earn(self) -> None:
        """An operation begins."""
        with self._lock:
            self._left = min(self._reserve, self._left + self._share)

    def spend(self) -> bool:
        """One retry, if it can be afforded; whether it can."""
        with self._lock:
            if self._left < 1.0:
                return False
            self._left -= 1.0
            return True
