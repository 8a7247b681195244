"""The settings of a door: all that is wrong with them is told at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from retrysafe.errors import ConfigurationError
from retrysafe.protocol.duration import Duration, milliseconds
from retrysafe.protocol.policy import MODES, Policy
from retrysafe.protocol.snapshot import Encryption
from retrysafe.server.routes import Routes
from retrysafe.stores.contract import CompletesWithin, Store


class Faults:
    """Collects what is wrong."""

    def __init__(self) -> None:
        self._faults: list[str] = []

    def collect(self, make: Callable[[], Any]) -> Any:
        """What is made; None and a fault noted if it cannot be."""
        try:
            return make()
        except ConfigurationError as error:
            self._faults.extend(error.faults)

    def raise_any(self) -> None:
        """Tell all of it.

        Raises:
            ConfigurationError: something was wrong.
        """
        if self._faults:
            raise ConfigurationError(self._faults)


def encryption_of(keys: str | bytes | Sequence[str | bytes] | None) -> Encryption | None:
    """The ring of these keys; None if there are none."""
    if keys is None:
        return None
    from retrysafe.encryption import key_ring  # noqa: PLC0415 - needs an extra

    return key_ring(keys)


def seconds(setting: str, duration: Duration) -> float:
    """A duration that a setting of this name was given."""
    try:
        return milliseconds(duration) / 1_000
    except (ValueError, AttributeError) as error:
        raise ConfigurationError([f"{setting}: {error}"]) from None


def only_observes(mode: str) -> bool:
    """Whether a door does nothing to any request.

    Raises:
        ConfigurationError: there is no such mode.
    """
    if mode not in MODES:
        raise ConfigurationError([f"mode is {mode!r}; it must be one of {', '.join(MODES)}"])
    return mode == "observe"


def protected_entries(entries: Mapping[str, Policy | None], *, only_observes: bool) -> dict[str, Policy | None]:
    """What holds for clients: nothing on a route that is only observed.

    Args:
        entries: of the routes, to their policies.
        only_observes: the door observes all of them.
    """
    return {
        entry: None if only_observes or policy is None or policy.mode == "observe" else policy
        for entry, policy in entries.items()
    }


_EVERY_S_MIN = 0.05


def every_s(complete_abandoned: Duration | None) -> float | None:
    """How often a door looks for operations that nobody drives any more; None: it does not.

    Raises:
        ConfigurationError: it is no duration, or too short.
    """
    if complete_abandoned is None:
        return None
    given_s = seconds("complete_abandoned", complete_abandoned)
    if given_s < _EVERY_S_MIN:
        raise ConfigurationError(
            [f"complete_abandoned is {complete_abandoned!r}; it must be at least {_EVERY_S_MIN} s"]
        )
    return given_s


def check_completes_within(routes: Routes, store: Store) -> None:
    """Routes that commit their record together with their work need a store that can.

    Raises:
        ConfigurationError: it cannot.
    """
    if routes.transactional:
        check_transactional(routes.transactional, store)


def check_transactional(entries: Sequence[str], store: Store) -> None:
    """As above, for entries whose policy says so.

    Raises:
        ConfigurationError: the store cannot.
    """
    if not isinstance(store, CompletesWithin):
        fault = (
            f"transactional=True is set for {', '.join(entries)}, and {store.name} cannot commit a "
            "record together with the work of a handler: name the application's own database in store= "
            "(postgresql://, mysql:// or sqlite:///)"
        )
        raise ConfigurationError([fault])
