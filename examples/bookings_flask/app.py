"""Bookings of rooms: a Flask application whose bookings are safe to retry.

Each booking and its record are one commit, because both are in one SQLite file. So a room is booked once, whatever the
network does, and whenever the process dies.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

from flask import Flask, Response, abort, jsonify, request

from retrysafe import operation
from retrysafe.flask import Idempotency, idempotent

DATABASE = os.environ.get("BOOKINGS_DATABASE", "bookings.db")

app = Flask(__name__)
app.config.from_mapping(
    IDEMPOTENCY_STORE=f"sqlite:///{DATABASE}",
    IDEMPOTENCY_SCOPE="header:X-Account-Id",
    IDEMPOTENCY_LEASE=os.environ.get("BOOKINGS_LEASE", "10s"),
)
Idempotency(app)
app.wsgi_app.open()  # type: ignore[attr-defined]  # the door; the file has to be its own before it has other tables

with closing(sqlite3.connect(DATABASE)) as made, made:
    made.execute("CREATE TABLE IF NOT EXISTS bookings (number INTEGER PRIMARY KEY, room TEXT, night TEXT)")


@app.post("/rooms/<room>/bookings")
@idempotent(required=True, transactional=True)
def book(room: str) -> Response:
    """Book a room for a night."""
    night = request.get_json().get("night") or abort(400, "say which night")
    with closing(sqlite3.connect(DATABASE)) as database, database:
        number = database.execute("INSERT INTO bookings (room, night) VALUES (?, ?)", (room, night)).lastrowid
        answer = jsonify(booking=number, room=room, night=night)
        answer.status_code = 201
        operation().complete_within(database, answer)
    return answer


@app.get("/rooms/<room>/bookings")
def bookings(room: str) -> Response:
    """How often it is booked."""
    with closing(sqlite3.connect(DATABASE)) as database:
        ((count,),) = database.execute("SELECT count(*) FROM bookings WHERE room = ?", (room,)).fetchall()
    return jsonify(count=count)
