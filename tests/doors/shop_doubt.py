"""Leaves a record in the shop whose outcome nobody knows, and prints its id."""

from __future__ import annotations

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "examples.shop_django.settings"

import django

django.setup()

from retrysafe.django.desk import desk
from retrysafe.model import Claim
from retrysafe.operate.which import by_key
from retrysafe.protocol import transitions

opened, namespace = desk()
identity = by_key(opened.secret, namespace, "1", "k-1")
opened.store.perform(
    transitions.ClaimIfAbsent(identity, bytes(16), bytes(33), 1000, 10**9, route="POST /orders", request=None)
)
opened.store.perform(transitions.MarkUnknownIfHeld(Claim(identity, bytes(16), 1), 10**9))
print(identity.hex())
