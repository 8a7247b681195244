"""A Django project whose users have sessions, as one process: what it answers, printed as JSON.

The middleware is in its list if `SHOP_MODE` says how it is to work.
"""

from __future__ import annotations

import json
import os
import sys

import django
from django.conf import settings

from tests.doors.gates import PLACE

_MODE = os.environ.get("SHOP_MODE")
_AUTH = "django.contrib.auth.middleware.AuthenticationMiddleware"

settings.configure(
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="of a test",
    USE_TZ=True,
    ROOT_URLCONF=__name__,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(PLACE / "django.db")}},
    INSTALLED_APPS=[
        "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "rest_framework",
        "retrysafe.django",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware", _AUTH,
        *(["retrysafe.django.IdempotencyMiddleware"] if _MODE else []),
    ],
    IDEMPOTENCY={"MODE": _MODE or "protect"},
)  # fmt: skip
django.setup()

from django.contrib.auth.models import User
from django.core.management import call_command
from django.http import HttpResponse
from django.test import Client
from django.urls import path
from rest_framework.authentication import BasicAuthentication
from rest_framework.response import Response
from rest_framework.views import APIView

from retrysafe.django.middleware import close_all


class Token(APIView):
    """Whose user the REST framework finds by itself."""

    authentication_classes = (BasicAuthentication,)

    def post(self, request):
        return Response({"user": str(request.user), "outer": str(request._request.user)})


urlpatterns = [
    path("plain", lambda request: HttpResponse(request.body)),
    path("whose", lambda request: HttpResponse(f"{request.user} {len(request.POST)}")),
    path("token", Token.as_view()),
]

if __name__ == "__main__":
    call_command("migrate", verbosity=0)
    User.objects.create_user("alice", password="secret")
    client = Client()
    client.login(username="alice", password="secret")
    answers = [
        client.post(target, {"item": "7"}, headers={"Idempotency-Key": key})
        for target, key in (("/plain", "k-1"), ("/plain", "k-1"), ("/whose", "k-2"), ("/token", "k-3"))
    ]
    close_all()
    json.dump([[answer.status_code, dict(answer.headers), answer.text] for answer in answers], sys.stdout)
