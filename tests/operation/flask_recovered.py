"""A Flask application around the door of the WSGI shop, for the command that recovers."""

from __future__ import annotations

from flask import Flask

from tests.doors.wsgi_apps import door

app = Flask(__name__)
app.wsgi_app = door  # type: ignore[method-assign]  # as Flask documents it
