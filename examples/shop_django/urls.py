"""The paths of the shop."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import path

from examples.shop_django.shop.views import Orders


def ready(_: HttpRequest) -> HttpResponse:
    """Whether the shop is open."""
    return HttpResponse("ready")


urlpatterns = [path("orders", Orders.as_view()), path("admin/", admin.site.urls), path("ready", ready)]
