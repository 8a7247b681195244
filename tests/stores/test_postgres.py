"""The store in PostgreSQL keeps the promise of every store."""

from __future__ import annotations

from retrysafe.testing import store_contract
from tests.stores.postgres_server import OnManualClock, schema_of, server


def postgres(clock, folder):
    return OnManualClock(server().url(), clock, schema_of(folder))


TestPostgres = store_contract(postgres)
