"""What a gateway promises to clients, from its settings and without serving anything."""

from __future__ import annotations

from retrysafe.errors import ConfigurationError
from retrysafe.gateway.config import Settings, parsed, policy_in, routes_in
from retrysafe.protocol.policy import Policy
from retrysafe.protocol.published import Published
from retrysafe.server.routes import ANY
from retrysafe.server.settings import protected_entries


def build_published(settings: Settings) -> Published:
    """What a gateway with these settings promises to clients.

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
    entries = protected_entries({ANY: policy, **routes}, only_observes=observes)
    return Published(scope, entries, None if observes else status_path, gateway=True)
