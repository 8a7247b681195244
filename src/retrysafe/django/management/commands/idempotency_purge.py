"""`manage.py idempotency_purge`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from retrysafe.django.desk import desk
from retrysafe.errors import RetrysafeError
from retrysafe.operate.purge import purge


class Command(BaseCommand):
    """Expire and forget the records whose time has come."""

    help = "Expire and forget the idempotency records whose time has come. Run it every few minutes."

    def handle(self, **_: Any) -> None:
        """Purge, and say what was done."""
        try:
            done = purge(desk()[0].store, lambda _: None)
        except RetrysafeError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{done.expired} expired, {done.forgotten} forgotten")
