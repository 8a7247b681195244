"""The application for `INSTALLED_APPS`: its tables, its pages, its commands, and its checks."""

from __future__ import annotations

from django.apps import AppConfig


class RetrysafeConfig(AppConfig):
    """`retrysafe.django`."""

    name = "retrysafe.django"
    label = "retrysafe"
    verbose_name = "Idempotency"

    def ready(self) -> None:
        """Register the checks."""
        from retrysafe.django import checks  # noqa: F401, PLC0415 - importing them registers them
