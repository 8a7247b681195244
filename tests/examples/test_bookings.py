"""The bookings example: each booking and its record are one commit, and a bed is booked once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx2

from tests.examples.serving import PATIENCE_S, started

PATH, BED = "/rooms/7/bookings", {"night": "2030-01-01", "guest": "ann"}


def book(server, key, content):
    """One attempt, which comes again for as long as another is at work."""
    headers = {"X-Account-Id": "7", "Idempotency-Key": key}
    while True:
        answer = httpx2.post(server.url + PATH, json=content, headers=headers, timeout=PATIENCE_S)
        if b"in-progress" not in answer.content:
            return answer


def test_bookings(tmp_path):
    """Eight attempts at once are one booking; no bed left is told again; what is no booking frees its key."""
    with started("bookings_flask", tmp_path, "/rooms/1/bookings", BOOKINGS_BEDS="1") as server:
        with ThreadPoolExecutor(8) as clients:
            answers = list(clients.map(lambda _: book(server, "k-1", BED), range(8)))
        assert {(answer.status_code, answer.text) for answer in answers} == {(201, answers[0].text)}
        full = [book(server, "k-2", BED) for _ in range(2)]
        assert [(it.status_code, "idempotent-replayed" in it.headers) for it in full] == [(409, False), (409, True)]
        assert book(server, "k-3", {"guest": "ann"}).status_code == 400
        assert book(server, "k-3", {**BED, "night": "2030-01-02"}).status_code == 201
        assert httpx2.get(server.url + PATH).json() == {"count": 2}
