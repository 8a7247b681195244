"""Bookings of rooms: a Flask application whose bookings are safe to retry.

Each booking and its record are one commit, because both are in one SQLite file. So a bed is booked once, whatever the
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
BEDS = int(os.environ.get("BOOKINGS_BEDS", "4"))  # in each room

app = Flask(__name__)
app.config.from_mapping(
    IDEMPOTENCY_STORE=f"sqlite:///{DATABASE}",
    IDEMPOTENCY_SCOPE="header:X-Account-Id",
    IDEMPOTENCY_LEASE=os.environ.get("BOOKINGS_LEASE", "10s"),
    IDEMPOTENCY_CONTRACT_PATH="/.well-known/idempotency-contract",
)
Idempotency(app)
app.wsgi_app.open()  # type: ignore[attr-defined]  # the door; the file has to be its own before it has other tables

TABLE = """
CREATE TABLE IF NOT EXISTS bookings (
    number INTEGER PRIMARY KEY, room TEXT NOT NULL, night TEXT NOT NULL, guest TEXT NOT NULL
)
"""
BOOK = """
INSERT INTO bookings (room, night, guest) SELECT :room, :night, :guest
WHERE (SELECT count(*) FROM bookings WHERE room = :room AND night = :night) < :beds
"""

with closing(sqlite3.connect(DATABASE)) as made, made:
    made.execute(TABLE)


@app.post("/rooms/<room>/bookings")
@idempotent(required=True, transactional=True)
def book(room: str) -> Response:
    """Book a bed in a room for a night. That there is none left is an outcome too: a retry is told the same."""
    wish = request.get_json()
    if not isinstance(wish, dict) or not all(isinstance(wish.get(said), str) for said in ("night", "guest")):
        operation().not_run()
        abort(400, "say which night, and for whom")
    booking = {"room": room, "night": wish["night"], "guest": wish["guest"]}
    with closing(sqlite3.connect(DATABASE)) as database, database:
        made = database.execute(BOOK, {**booking, "beds": BEDS})
        if made.rowcount:
            answer = jsonify(booking=made.lastrowid, **booking)
            answer.status_code = 201
        else:
            answer = jsonify(error="there is no bed left")
            answer.status_code = 409
        operation().complete_within(database, answer)
    return answer


@app.get("/rooms/<room>/bookings")
def bookings(room: str) -> Response:
    """How many beds of it are booked; with a guest, for them."""
    query, guest = "SELECT count(*) FROM bookings WHERE room = ?", request.args.get("guest")
    with closing(sqlite3.connect(DATABASE)) as database:
        ((count,),) = database.execute(
            query + (" AND guest = ?" if guest is not None else ""), (room, guest) if guest is not None else (room,)
        ).fetchall()
    return jsonify(count=count)
