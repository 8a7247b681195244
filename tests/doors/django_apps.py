"""A Django project in one file, for servers of both kinds: views that do what a request tells them to."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import django
from django.conf import settings

from tests.doors.gates import LEASE, PLACE, TABLE, note, store

ASYNC = "SHOP_ASYNC" in os.environ

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="of a test",
        USE_TZ=True,
        ROOT_URLCONF=__name__,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(PLACE / "django.db")}},
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "rest_framework", "retrysafe.django"],
        MIDDLEWARE=["tests.doors.django_apps.guard", *["retrysafe.django.IdempotencyMiddleware"] * 2],  # one is enough
        APPEND_SLASH=False,
        LOGGING={
            "version": 1,
            "disable_existing_loggers": False,
            "root": {"handlers": ["console"]},
            "handlers": {"console": {"class": "logging.StreamHandler"}},
        },
        IDEMPOTENCY={
            **({"STORE": store()} if "SHOP_STORE" in os.environ else {}),  # else Django's own database
            "MODE": os.environ.get("SHOP_MODE", "protect"),
            "SCOPE": "tests.doors.django_apps.account",
            "ENCRYPTION_KEYS": "ab" * 32,
            "REAUTHENTICATE": "tests.doors.django_apps.reauthenticate",
            "RECONCILE": "tests.doors.django_apps.reconcile",
            "COMPLETE_ABANDONED": os.environ.get("SHOP_RECOVERS"),
            "STATUS_PATH": "/idempotency/requests",
            "CONTRACT_PATH": "/.well-known/idempotency-contract",
            "POLICY": {"lease": LEASE},
            "ROUTES": {**TABLE, "POST /open": None, "POST /until": {"expires_header": True}},
            "AUTHORIZE": "tests.doors.django_apps.allowed",
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
from django.urls import path, re_path
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
from retrysafe.operation import current_operation, operation
from retrysafe.recovery import Completed, Identity
from tests.doors.wsgi_apps import answer, numbers, ticks


def account(request):
    """Of the field that the tests send."""
    return request.headers.get("X-Account")


def allowed(request):
    """Whether a replay is."""
    return request.headers.get("X-Revoked") != "yes"


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
    answer(wish)
    now = current_operation()
    return {"name": wish["name"], "attempt": now.attempt if now else 0}


class Stepped:
    """Pieces for an event loop, each made on a thread."""

    def __init__(self, pieces):
        self._pieces = pieces
        self.close = getattr(pieces, "close", lambda: None)

    async def __aiter__(self):
        pieces = iter(self._pieces)
        step = sync_to_async(lambda: next(pieces, None))
        while (piece := await step()) is not None:
            yield piece


def response(pieces, status=200, headers=(), *, whole=False):
    """What a view answers: content that is there, or that is made as it is sent, in the mode that Django is in."""
    if whole:
        made = HttpResponse(b"".join(pieces), status=status)
    else:
        made = StreamingHttpResponse(Stepped(pieces) if ASYNC else pieces, status=status)
    for field, value in headers:  # of which Django has one of each name
        made[field] = f"{made[field]}, {value}" if field in made and field != "content-type" else value
    return made


def told(request, place=""):
    """Whole, unless it is told about pieces or their size."""
    wish = json.loads(request.body)
    status, headers, pieces = answer(wish)
    return response(pieces, status, headers, whole=not wish.keys() & {"pieces", "sized"})


async def atold(request, place=""):
    """The same, in a view for asyncio."""
    wish = json.loads(request.body)
    status, headers, pieces = await sync_to_async(answer)(wish)
    return response(pieces, status, headers, whole=not (ASYNC and wish.keys() & {"pieces", "sized"}))


def size(request):
    """How much content came, through whatever Django has for it."""
    note(f"effect {request.GET['name']}")
    return HttpResponse(f"{len(request.body)} {sum(request.body)}")


def upload(request):
    """A file of a form, which Django parses from the stream."""
    note(f"effect {request.GET['name']}")
    return HttpResponse(str(request.FILES["file"].size), status=201)


def streamed(request):
    """A content that is made as it is sent."""
    note(f"effect {request.GET['name']}")
    return response(numbers(request.GET["name"]), 201)


def events(request):
    """The same for ever, or nearly."""
    return response(ticks(request.GET["name"]), headers=[("content-type", "text/event-stream")])


def threaded(request):
    """Says its key."""
    note(f"effect {request.GET['name']}")
    return HttpResponse(operation().key, status=201)


def file(request):
    """A file."""
    return FileResponse(Path(__file__).with_name("wsgi_apps.py").open("rb"))


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
    re_path(r"^(?P<place>.*/)?told$", atold if ASYNC else told),
    path("until", atold if ASYNC else told),
    path("atold", atold),
    path("size", size),
    path("upload", upload),
    path("file", file),
    path("streamed", streamed),
    path("ticks", events),
    path("threaded", threaded),
    path("marked/<slug:name>", lambda request, name: marked(request)),
    path("named/<slug:name>", named),
    path("marked", marked),
    path("item", Item.as_view()),
    path("orders", Orders.as_view({"post": "create"})),
    path("charges", Charge.as_view()),
]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
elif ASYNC:
    application = get_asgi_application()
else:
    application = get_wsgi_application()
