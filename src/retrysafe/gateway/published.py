"""What a gateway promises to clients, from its settings and without serving anything."""

from __future__ import annotations

from dataclasses import replace

from retrysafe.errors import ConfigurationError
from retrysafe.gateway.config import Settings, parsed, policy_in, routes_in
from retrysafe.protocol.policy import Policy
from retrysafe.protocol.published import Published
from retrysafe.server.routes import ANY
from retrysafe.server.settings import protected_entries


def build_published(settings: Settings) -> Published:
    """What a gateway with these settings promises to clients; of routes that are only observed nothing.

    Raises:
        ConfigurationError: with every fault in what that is made of.
    """
    declared = build_declared(settings)
    return replace(declared, routes=protected_entries(declared.routes, only_observes=False))


def build_declared(settings: Settings) -> Published:
    """The same with what holds for routes that are only observed, for people who look at the settings.

    Raises:
        ConfigurationError: with every fault in what that is made of.
    """
    faults = [*settings.faults]
    scope = parsed("scope", settings, faults)
    status_path = parsed("status_path", settings, faults)
    observes = parsed("mode", settings, faults) == "observe"
    policy = policy_in(settings, faults) or Policy()
    routes = routes_in(settings, policy, faults)
    if faults:
        raise ConfigurationError(faults)
    entries: dict[str, Policy | None] = {ANY: policy, **routes}
    if observes:
        entries = {entry: it and replace(it, mode="observe") for entry, it in entries.items()}
    return Published(scope, entries, None if observes else status_path, gateway=True)
