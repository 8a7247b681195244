"""Looks at the pages of the shop's admin as three people do, and says what they saw, as JSON."""

from __future__ import annotations

import json
import os
import re
import sys

os.environ["DJANGO_SETTINGS_MODULE"] = "examples.shop_django.settings"

import django

django.setup()

from django.conf import settings
from django.test import Client

LIST = "/admin/retrysafe/record/"


def look(person):
    """What somebody sees of the records, and what they may do."""
    client = Client()
    assert client.login(username=person, password=person)
    listed = client.get(f"{LIST}?state=unknown")
    record = re.search(rb"record/([0-9a-f]{64})/", listed.content)
    if record is None:
        return {"list": listed.status_code}
    path = f"{LIST}{record[1].decode()}/"
    page = client.get(path)
    said = {"outcome": "completed", "status": "201", "content_type": "application/json", "body": '{"order": 7}'}
    without_note = client.post(path, said)
    resolved = client.post(path, {**said, "note": "seen in the books"}) if sys.argv[1] == "resolve" else None
    return {
        "list": listed.status_code, "page": page.status_code, "form": b"Resolve" in page.content,
        "faulty": without_note.status_code, "resolved": resolved.status_code if resolved else None,
        "history": b"seen in the books" in client.get(path).content,
        "add": client.get(f"{LIST}add/").status_code,
    }  # fmt: skip


settings.ALLOWED_HOSTS = ["testserver"]
print(json.dumps({person: look(person) for person in sys.argv[2:]}))
