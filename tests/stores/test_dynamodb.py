"""The store in a DynamoDB table keeps the promise of every store, against moto's server."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from hypothesis import settings

from retrysafe.stores.dynamodb import DynamoStore
from retrysafe.stores.memory import MemoryStore
from retrysafe.testing.machine import store_machine
from tests.stores.dynamodb_service import Service, running
from tests.stores.ways import imitated


class OneClient(boto3.Session):  # type: ignore[misc] # boto3 has no types
    """A session that makes each client once: to make one takes longer than most cases do."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self._made = {}

    def client(self, service_name, **settings):
        wanted = (settings["endpoint_url"], settings["config"].retries["total_max_attempts"])
        if wanted not in self._made:
            self._made[wanted] = super().client(service_name, **settings)
        return self._made[wanted]


SESSION = OneClient(aws_access_key_id="id", aws_secret_access_key="secret", region_name="eu-central-1")
TABLE = "keys"
STARTED: list[Service] = []


@pytest.fixture(scope="module", autouse=True)
def service():
    with running() as service:
        STARTED.append(service)
        yield service
        STARTED.clear()


FOLDERS: list[Path] = []


def make(clock, folder):
    """A store on the one table, which is emptied for each folder: the cases come one after the other."""
    if folder not in FOLDERS:
        STARTED[0].empty(TABLE)
        FOLDERS[:] = [folder]
    return DynamoStore(TABLE, session=SESSION, endpoint_url=STARTED[0].url, clock=clock)


@contextmanager
def conflicting(folder):
    """A transaction of somebody else holds every record."""
    STARTED[0].trouble("conflict", TABLE)
    yield
    STARTED[0].trouble("conflict", TABLE, times=0)


TestDynamo = imitated(make, "asyncio", failing=conflicting)

TestDynamoAgainstMemory = store_machine(lambda clock, folder: MemoryStore(clock), make)
TestDynamoAgainstMemory.settings = settings(max_examples=settings().max_examples // 10, stateful_step_count=25)
