"""What Django's permissions and pages are about. The records themselves are the store's, in tables of its own."""

from __future__ import annotations

from django.db import models


class Record(models.Model):
    """One record, by its id in hexadecimal. Nothing is read or written by this model."""

    record_id = models.CharField(max_length=64, primary_key=True)

    class Meta:
        """It has no table."""

        managed = False
        default_permissions = ("view", "change")

    def __str__(self) -> str:
        return str(self.record_id)
