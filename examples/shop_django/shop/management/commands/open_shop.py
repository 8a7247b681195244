"""`python -m examples.shop_django.manage open_shop`: tables, two customers, and something to sell."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import BaseCommand
from rest_framework.authtoken.models import Token

from examples.shop_django.shop.models import Item


class Command(BaseCommand):
    """Makes what is not there yet. The customers' tokens are their names: this is an example."""

    help = "Make the tables, the customers ann and bob, and lamps."

    def handle(self, **_: Any) -> None:
        """Do it."""
        call_command("migrate", verbosity=0)
        for name in ("ann", "bob"):
            customer, _created = User.objects.get_or_create(username=name)
            Token.objects.get_or_create(user=customer, defaults={"key": name})
        Item.objects.get_or_create(name="lamp", defaults={"stock": 100_000})
