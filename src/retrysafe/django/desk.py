"""The records of a project for people: what its pages and commands work with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from retrysafe.django.enrolment import mark_of, views
from retrysafe.django.settings import Configuration, configuration
from retrysafe.operate.keys import Desk
from retrysafe.protocol.policy import Policy


def desk() -> tuple[Desk, str]:
    """The desk over the project's store, opened, and the namespace.

    Raises:
        ConfigurationError: the settings are faulty.
        StoreError: the store cannot be reached, or must not be used.
    """
    found = configuration()
    return Desk(found.store, found.store.open(found.secret), found.encryption, _policy_of(found)), found.namespace


def _policy_of(found: Configuration) -> Callable[[str], Policy]:
    """From the route of a record to what holds for it: of marked views by their pattern, else by the table."""

    def policy_of(entry: str) -> Policy:
        method, _, path = entry.partition(" /")
        for pattern, view in views():
            if pattern == path and (options := mark_of(view, method)) is not None:
                return replace(found.policy, **options)
        return found.routes.policy_of(entry)

    return policy_of
