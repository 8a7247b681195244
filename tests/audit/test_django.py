"""A Django project, audited as its owner does: found by manage.py, mended by what is printed, checked by Django too."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.audit.auditing import ids, paste

OURS = "retrysafe.django.IdempotencyMiddleware"
AUTHENTICATION = "django.contrib.auth.middleware.AuthenticationMiddleware"

SETTINGS = """
SECRET_KEY = "of a test"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "shop.db"}}
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware", "django.contrib.auth.middleware.AuthenticationMiddleware",
]
"""
URLS = """
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import include, path
from django.views import View
from django.views.decorators.http import require_GET, require_http_methods
from rest_framework import generics, serializers

from retrysafe.django import idempotent


class Wish(serializers.Serializer):
    amount = serializers.IntegerField()
    currency = serializers.CharField()


class Wishes(generics.CreateAPIView):
    serializer_class = Wish


class Refunds(View):
    @idempotent(lifetime="1h")
    def post(self, request, pk):
        return HttpResponse()

    def patch(self, request, pk):
        return StreamingHttpResponse(["a"])


@require_GET
def payments(request):
    return HttpResponse()


@require_http_methods(["POST", "GET"])
def pay(request):
    return HttpResponse()


urlpatterns = [
    path("payments", payments),
    path("shop/", include([path("pay/<int:pk>", pay), path("refunds/<int:pk>", Refunds.as_view())])),
    path("wishes", Wishes.as_view()),
]
"""
MANAGE = """
import os, sys
from django.core.management import execute_from_command_line
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
execute_from_command_line(sys.argv)
"""
WSGI = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
"""


@pytest.fixture
def project(tmp_path):
    """A project that has never heard of us."""
    for name, text in {"settings": SETTINGS, "urls": URLS, "manage": MANAGE, "wsgi": WSGI}.items():
        (tmp_path / f"{name}.py").write_text(text, "utf-8")
    return tmp_path


def python(project, *arguments):
    """A program in the folder of the project."""
    environment = {it: value for it, value in os.environ.items() if not it.startswith(("RETRYSAFE_", "DJANGO_"))}
    line = [sys.executable, "-B", *arguments]
    return subprocess.run(line, cwd=project, env=environment, capture_output=True, text=True, check=False)


def audit(project, *arguments):
    """The report of the project."""
    done = python(project, "-m", "retrysafe", "audit", "--json", "--fix", *arguments)
    assert done.returncode in {0, 1}, done.stderr
    return json.loads(done.stdout)


def test_mended(project):
    """From nothing to clean, by what is printed; then Django's own check finds nothing either."""
    before = audit(project)
    assert (before["kind"], before["target"]) == ("django", "settings")
    assert ids(before) == [
        "AUD-01 POST /shop/pay/<int:pk>",
        "AUD-01 POST /shop/refunds/<int:pk>",
        "AUD-01 PATCH /shop/refunds/<int:pk>",
        "AUD-01 POST /wishes",
    ]
    places = {
        it["where"]: (it["file"], URLS.splitlines()[it["line"] - 1].strip())
        for it in before["findings"]
        if it["file"] == "urls.py"
    }
    assert places["POST /shop/pay/<int:pk>"] == ("urls.py", '@require_http_methods(["POST", "GET"])')
    assert places["POST /shop/refunds/<int:pk>"] == ("urls.py", '@idempotent(lifetime="1h")')
    paste(project, before, "settings.py")
    assert ids(audit(project)) == []
    checked = python(project, "manage.py", "check", "--fail-level", "WARNING")
    assert (checked.returncode, "no issues" in checked.stdout) == (0, True), checked.stderr


def test_by_what_a_server_runs(project):
    """MODULE:APP of Django's."""
    made = audit(project, "wsgi:application")
    assert (made["kind"], len(made["operations"]), len(made["findings"])) == ("django", 4, 4)


def test_order(project):
    """Middleware in front of what authenticates is found, and moved; settings that are faulty or gone."""
    door = f'\nINSTALLED_APPS += ["retrysafe.django"]\nMIDDLEWARE = ["{OURS}", "{AUTHENTICATION}"]\n'
    (project / "settings.py").write_text(SETTINGS + door + 'IDEMPOTENCY = {"POLICY": {"required": True}}\n', "utf-8")
    before = audit(project, "--ignore", "AUD-03", "--ignore", "AUD-05")
    assert ids(before)[0] == "AUD-14 scope"
    paste(project, {"fragments": [it for it in before["fragments"] if it["for"] == ["AUD-14 scope"]]}, "settings.py")
    assert "AUD-14 scope" not in ids(audit(project))
    (project / "settings.py").write_text(SETTINGS + door + 'IDEMPOTENCY = {"STROE": "memory://"}\n', "utf-8")
    done = python(project, "-m", "retrysafe", "audit")
    assert (done.returncode, "STROE" in done.stderr) == (2, True)
    done = python(project, "-m", "retrysafe", "audit", "--django", "no_such_settings")
    assert (done.returncode, "cannot be set up" in done.stderr) == (3, True)
