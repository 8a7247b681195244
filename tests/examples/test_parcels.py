"""The parcels example: a Node service that knows no keys, behind the gateway."""

from __future__ import annotations

import httpx2

from tests.examples.serving import PATIENCE_S, node, started

PARCEL = {"to": "1 Main Street", "grams": 500, "reference": "r-1"}


def post(server, path, key, content):
    """One attempt."""
    headers = {"X-Account-Id": "7", "Idempotency-Key": key}
    return httpx2.post(server.url + path, json=content, headers=headers, timeout=PATIENCE_S)


def total(server):
    return httpx2.get(f"{server.url}/parcels").json()["total"]


def test_parcels(tmp_path):
    """A retry gets the first answer; a full van has taken nothing, and so the same key is good for the next one."""
    node()
    with started("parcels_node", tmp_path, "/parcels", VAN_PLACES="1") as server:
        first, again = (post(server, "/parcels", "k-1", PARCEL) for _ in range(2))
        assert (first.status_code, first.json()["parcel"], again.content) == (201, 1, first.content)
        assert (again.headers["idempotent-replayed"], total(server)) == ("true", 1)
        full = [post(server, "/parcels", "k-2", PARCEL) for _ in range(2)]
        assert [(it.status_code, "idempotent-replayed" in it.headers) for it in full] == [(503, False)] * 2
        assert "idempotency-effect" not in full[0].headers  # which is between the service and the gateway
        assert post(server, "/parcels", "k-2", {**PARCEL, "grams": 1}).json()["code"] == "key-reused"
        assert [post(server, "/departures", "k-3", {}).json() for _ in range(2)] == [{"departed": 1}] * 2
        taken = post(server, "/parcels", "k-2", PARCEL)
        assert (taken.status_code, taken.headers["location"], total(server)) == (201, "/parcels/2", 2)
        faulty = [post(server, "/parcels", "k-4", {"to": 7}) for _ in range(2)]
        assert [(it.status_code, "idempotent-replayed" in it.headers) for it in faulty] == [(400, False), (400, True)]
    with started("parcels_node", tmp_path, "/parcels", VAN_PLACES="1") as server:
        assert (total(server), post(server, "/parcels", "k-2", PARCEL).headers["idempotent-replayed"]) == (2, "true")
        assert post(server, "/parcels", "k-5", PARCEL).status_code == 503
