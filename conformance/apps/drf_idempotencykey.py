"""drf-idempotencykey, as its README says: the mixin of views of the REST framework; its records in the database."""

from __future__ import annotations

from typing import Any

from conformance.apps.django_project import SHOP, configure, placed

configure(
    __name__,
    apps=("rest_framework", "drf_idempotencykey"),
    # Without these, SQLite refuses writers that come together, which is not the package's fault.
    options={"timeout": 30, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=wal"},
    REST_FRAMEWORK={"DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"]},
)

from django.contrib.auth import get_user_model  # noqa: E402 - Django is set up first
from django.core.management import call_command  # noqa: E402 - as above
from django.core.wsgi import get_wsgi_application  # noqa: E402 - as above
from django.urls import path  # noqa: E402 - as above
from drf_idempotencykey.mixins import DrfIdempotencyKeyMixin  # noqa: E402 - as above
from rest_framework.authentication import BaseAuthentication  # noqa: E402 - as above
from rest_framework.response import Response  # noqa: E402 - as above
from rest_framework.views import APIView  # noqa: E402 - as above

from conformance.shop import PATHS, Answer  # noqa: E402 - as above


class Bearer(BaseAuthentication):
    """The account is what follows the word `Bearer`."""

    def authenticate(self, request: Any) -> Any:
        """The user of this name."""
        name = request.headers.get("Authorization", "").removeprefix("Bearer ")
        user = get_user_model().objects.filter(username=name).first()
        return (user, None) if user else None


def respond(answer: Answer) -> Response:
    """The answer of the shop as a response."""
    return Response(answer.document, status=answer.status, headers=dict(answer.headers))


class Orders(DrfIdempotencyKeyMixin, APIView):
    """What has an effect, and how many effects there are."""

    authentication_classes = (Bearer,)

    def post(self, request: Any) -> Response:
        """Place an order."""
        return respond(placed(request, request._request.body))  # noqa: SLF001 - the bytes, as they came

    def get(self, request: Any) -> Response:
        """Count."""
        return respond(SHOP.count(request.GET))


urlpatterns = [path(place.removeprefix("/"), Orders.as_view()) for place in PATHS]
call_command("migrate", verbosity=0)
for account in ("alice", "bob"):
    get_user_model().objects.get_or_create(username=account)
application = get_wsgi_application()
