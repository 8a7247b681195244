"""Tests of a Django project, for a pytest of their own: its clients in both modes, with the fixture of the plugin."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import django
import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection, models
from django.test import AsyncClient, Client
from django.test.utils import override_settings, setup_test_environment

PLACE = Path(os.environ["SHOP_PLACE"])
settings.configure(
    SECRET_KEY="of a test",
    ROOT_URLCONF=__name__,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(PLACE / "django.db"),
                           "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE"}}},
    INSTALLED_APPS=["retrysafe.django"],
    MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware", "retrysafe.django.IdempotencyMiddleware"],
    IDEMPOTENCY={"SCOPE": "header:X-Account-Id"},
)  # fmt: skip
django.setup()
setup_test_environment()  # as runners of Django's tests do: its clients call the host "testserver"

from django.http import JsonResponse  # noqa: E402 Django is set up first
from django.urls import path  # noqa: E402 as above

from retrysafe.testing import NotSafeToRetry, retry_check_async  # noqa: E402 as above

CASES = ("REP-01", "FPR-01", "CON-08", "OUT-08", "OUT-09")
OPTIONS: Any = {"json": {"reference": "{{unique}}", "quantity": 1}, "cases": CASES}


class Order(models.Model):  # type: ignore[misc] # Django has no types
    """What was ordered."""

    reference = models.CharField(max_length=100)

    class Meta:
        """Of no installed application."""

        app_label = "shop"

    def __str__(self) -> str:
        """What it is known by."""
        return str(self.reference)


def order(request):
    """A view of the blocking mode."""
    placed = Order.objects.create(reference=json.loads(request.body)["reference"])
    return JsonResponse({"id": placed.pk}, status=201)


async def order_async(request):
    """A view of the other mode."""
    placed = await Order.objects.acreate(reference=json.loads(request.body)["reference"])
    return JsonResponse({"id": placed.pk}, status=201)


urlpatterns = [path("orders", order), path("orders-async", order_async)]


def count(reference):
    """How many there are, on the connection of the test."""
    return Order.objects.filter(reference=reference).count()


@pytest.fixture(autouse=True, scope="module")
def database():
    call_command("migrate", verbosity=0)
    with connection.schema_editor() as editor:
        editor.create_model(Order)
    yield
    connection.close()


def test_blocking(retry_check):
    """A client of Django's, in its blocking mode."""
    client = Client(headers={"X-Account-Id": "7"})
    report = retry_check(client, "POST", "/orders", effects=count, **OPTIONS)
    assert report.is_protected
    assert set(report.passed) == set(CASES)
    assert "outcome-unknown" in report["OUT-09"].notes[0]


def test_asynchronous():
    """A client of Django's for an event loop, in which the application is served too."""

    async def count_async(reference):
        return await Order.objects.filter(reference=reference).acount()

    async def scene():
        client = AsyncClient(headers={"X-Account-Id": "7"})
        return await retry_check_async(client, "POST", "/orders-async", effects=count_async, **OPTIONS)

    report = asyncio.run(scene())
    assert report.is_protected
    assert set(report.passed) == set(CASES)
    assert "outcome-unknown" in report["OUT-09"].notes[0]


@override_settings(MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"])
def test_unprotected(retry_check):
    """Without the middleware it is found; what only the engine could bring about is not tried."""
    with pytest.raises(NotSafeToRetry) as raised:
        retry_check(Client(), "POST", "/orders", effects=count, **OPTIONS)
    assert raised.value.report.failed == ["REP-01", "FPR-01"]
    assert set(raised.value.report.skipped) == {"CON-08", "OUT-08", "OUT-09"}


@override_settings(MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"])
def test_csrf(retry_check):
    """A client that enforces checks of tokens has its requests refused here as it has them elsewhere."""
    with pytest.raises(NotSafeToRetry) as raised:
        retry_check(Client(enforce_csrf_checks=True), "POST", "/orders", effects=count, **OPTIONS)
    assert "403" in raised.value.report.inconclusive["REP-01"]
