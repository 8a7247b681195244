"""A Django project in one file, for servers of both kinds: views that do what a request tells them to."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import django
from django.conf import settings

from tests.doors.apps import _place, failpoint, note
from tests.doors.wsgi_apps import gate

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="of a test",
        USE_TZ=True,
        ROOT_URLCONF=__name__,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(_place / "django.db")}},
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "rest_framework", "retrysafe.django"],
        MIDDLEWARE=["tests.doors.django_apps.guard", *["retrysafe.django.IdempotencyMiddleware"] * 2],  # one is enough
        APPEND_SLASH=False,
        IDEMPOTENCY={
            "SCOPE": "tests.doors.django_apps.account",
            "ENCRYPTION_KEYS": "ab" * 32,
            "REAUTHENTICATE": "tests.doors.django_apps.reauthenticate",
            "RECONCILE": "tests.doors.django_apps.reconcile",
            "COMPLETE_ABANDONED": os.environ.get("SHOP_RECOVERS"),
            "STATUS_PATH": "/idempotency/requests",
            "CONTRACT_PATH": "/.well-known/idempotency-contract",
            "POLICY": {"lease": os.environ.get("SHOP_LEASE", "10s")},
            "ROUTES": {
                "POST /open": None,
                "POST /until": {"expires_header": True},
                "POST /wait": {"in_flight": "wait", "wait": "20s"},
            },
        },
        REST_FRAMEWORK={"UNAUTHENTICATED_USER": None},
        DATA_UPLOAD_MAX_MEMORY_SIZE=10 << 20,
    )
    django.setup()

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.contrib.auth.models import User
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.utils.decorators import sync_and_async_middleware
from django.views import View
from django.views.decorators.http import require_POST
from rest_framework import permissions, serializers, viewsets
from rest_framework.decorators import action, api_view
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.views import APIView

from retrysafe.django import idempotent
from retrysafe.django.asgi import get_asgi_application
from retrysafe.operation import current_operation
from retrysafe.recovery import Completed, Identity


def account(request):
    """Of the field that the tests send."""
    return request.headers.get("X-Account")


def reauthenticate(account):
    """Who sends what was abandoned: found in a database, as in a project; `gone` is nobody any more."""
    assert not User.objects.filter(username=account).exists()
    return None if account == "gone" else Identity(headers={"X-By": account})


def reconcile(record):
    """What became of an operation: done, if its effect is in the ledger."""
    assert User.objects.count() == 0
    return Completed({"found": record.route}, status=201)


@sync_and_async_middleware
def guard(get_response):
    """Middleware further out, which lets everything pass: it is adapted to both modes."""
    if iscoroutinefunction(get_response):
        return get_response

    def guarded(request):
        return get_response(request)

    return guarded


def done(wish):
    """An effect, and what to answer."""
    name = wish["name"]
    note(f"begun {name}")
    failpoint("before-effect")
    note(f"effect {name}")
    failpoint("after-effect")
    gate(f"{name}-effect")
    if wish.get("raise"):
        raise ZeroDivisionError(name)
    now = current_operation()
    if now is not None and "say" in wish:
        getattr(now, wish["say"])()
    return {"name": name, "attempt": now.attempt if now else 0}


def told(request):
    wish = json.loads(request.body)
    response = JsonResponse(done(wish), status=wish.get("status", 201))
    response.set_cookie("session", "secret")
    response["X-Shop"] = "yes"
    response["Idempotent-Replayed"] = "true"  # which is not its to say
    return response


async def atold(request):
    """The same, in a view for asyncio."""
    wish = json.loads(request.body)
    return JsonResponse(await sync_to_async(done)(wish), status=wish.get("status", 201))


def size(request):
    """How much content came, through whatever Django has for it."""
    note(f"effect {request.GET['name']}")
    return HttpResponse(str(len(request.body)))


def upload(request):
    """A file of a form, which Django parses from the stream."""
    note(f"effect {request.GET['name']}")
    return HttpResponse(str(request.FILES["file"].size), status=201)


def _pieces(wish):
    for number, piece in enumerate(wish["pieces"]):
        gate(f"{wish['name']}-{number}")
        if wish.get("raise_at") == number:
            raise ZeroDivisionError(wish["name"])
        yield piece.encode()
    note(f"sent {wish['name']}")


def streamed(request):
    """A content that is made as it is sent."""
    wish = json.loads(request.body)
    note(f"effect {wish['name']}")
    headers = {"Content-Length": str(sum(map(len, wish["pieces"])))} if wish.get("sized") else {}
    return StreamingHttpResponse(_pieces(wish), status=201, headers=headers)


async def astreamed(request):
    """The same, for asyncio."""
    wish = json.loads(request.body)
    note(f"effect {wish['name']}")

    async def pieces():
        made = _pieces(wish)
        step = sync_to_async(lambda: next(made, None))
        while (piece := await step()) is not None:
            yield piece

    headers = {"Content-Length": str(sum(map(len, wish["pieces"])))} if wish.get("sized") else {}
    return StreamingHttpResponse(pieces(), status=201, headers=headers)


def file(request):
    """A file."""
    note(f"effect {request.GET['name']}")
    return FileResponse(Path(__file__).open("rb"))


@require_POST
@idempotent(required=True)
def marked(request):
    """A function that is marked."""
    return JsonResponse(done(json.loads(request.body)), status=201)


@idempotent(required=True, recovery="rerun")
def named(request, name):
    """One that is marked as safe to run again, at a path with a variable in it."""
    return JsonResponse({"by": request.headers.get("X-By"), **done({"name": name})}, status=201)


class Item(View):
    """A class of which one method is marked."""

    @idempotent(required=True, lifetime="7d")
    def put(self, request):
        return JsonResponse(done(json.loads(request.body)), status=201)


class Order(serializers.Serializer):
    """What may be ordered."""

    name = serializers.CharField()
    count = serializers.IntegerField(min_value=1)


class HasToken(permissions.BasePermission):
    """Who sends it may order."""

    def has_permission(self, request, view):
        return request.headers.get("X-Token") != "none"


class Orders(viewsets.ModelViewSet):
    """Whose effects begin in `perform_create`."""

    serializer_class = Order
    permission_classes = (HasToken,)

    @idempotent(required=True)
    def perform_create(self, serializer):
        done(serializer.validated_data)


class Charge(APIView):
    """Whose method is marked."""

    permission_classes = (HasToken,)

    @idempotent(required=True)
    def post(self, request):
        return Response(done(request.data), status=201)


@idempotent(required=True)
@api_view(["POST"])
def function(request):
    """A function that the REST framework makes a view of."""
    return Response(done(request.data), status=201)


class Actions(viewsets.ViewSet):
    """Of which one action is marked."""

    @action(detail=False, methods=["post"])
    @idempotent(required=True)
    def ship(self, request):
        return Response(done(request.data), status=201)


router = SimpleRouter(trailing_slash=False)
router.register("actions", Actions, basename="actions")

urlpatterns = [
    *router.urls,
    path("function", function),
    path("ready", lambda _: HttpResponse("ready")),
    path("told", told),
    path("wait", told),
    path("until", told),
    path("atold", atold),
    path("open", told),
    path("size", size),
    path("upload", upload),
    path("file", file),
    path("streamed", astreamed if os.environ.get("SHOP_ASYNC") else streamed),
    path("marked/<slug:name>", lambda request, name: marked(request)),
    path("named/<slug:name>", named),
    path("marked", marked),
    path("item", Item.as_view()),
    path("orders", Orders.as_view({"post": "create"})),
    path("charges", Charge.as_view()),
]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
elif os.environ.get("SHOP_ASYNC"):
    application = get_asgi_application()
else:
    application = get_wsgi_application()
