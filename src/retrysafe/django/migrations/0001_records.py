"""The tables of the records, in the database that the setting `IDEMPOTENCY["STORE"]` names, if it names one."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import migrations, models

from retrysafe.django.database import make_tables
from retrysafe.django.settings import records_alias


def make(_: Any, schema_editor: Any) -> None:
    """Go through the migrations of the store."""
    alias = schema_editor.connection.alias
    if alias == records_alias():
        make_tables(alias)


class Migration(migrations.Migration):
    """Not atomic: the store has connections of its own, and would wait for this one's transaction."""

    atomic = False
    dependencies: ClassVar[list[Any]] = []
    operations: ClassVar[list[Any]] = [
        migrations.CreateModel(
            name="Record",
            fields=[("record_id", models.CharField(max_length=64, primary_key=True, serialize=False))],
            options={"managed": False, "default_permissions": ("view", "change")},
        ),
        migrations.RunPython(make, migrations.RunPython.noop),
    ]
