"""The records of a project for people: what its pages and commands work with."""

from __future__ import annotations

from retrysafe.django.enrolment import Enrolment
from retrysafe.django.settings import configuration
from retrysafe.operate.keys import Desk
from retrysafe.server.marker import MarkedRoutes


def desk() -> tuple[Desk, str]:
    """The desk over the project's store, opened, and the namespace.

    Raises:
        ConfigurationError: the settings are faulty.
        StoreError: the store cannot be reached, or must not be used.
    """
    found = configuration()
    enrolment = Enrolment(found.routes, MarkedRoutes(found.policy, found.store))
    secret = found.store.open(found.secret)
    return Desk(found.store, secret, found.encryption, enrolment.policy_of), found.namespace
