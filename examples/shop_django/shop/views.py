"""Ordering. An order, what it takes from the stock and its record are one commit."""

from __future__ import annotations

from typing import Any

from django.db import connection, transaction
from django.http import JsonResponse
from rest_framework import serializers
from rest_framework.views import APIView

from examples.shop_django.shop.models import Item, Order
from retrysafe import operation
from retrysafe.django import idempotent


class Wish(serializers.Serializer):
    """What a customer sends."""

    item = serializers.CharField(max_length=100)
    count = serializers.IntegerField(min_value=1, max_value=100)
    reference = serializers.CharField(max_length=100, default="")


class Orders(APIView):
    """Orders of the customer who asks."""

    @idempotent(required=True, transactional=True)
    def post(self, request: Any) -> JsonResponse:
        """Order something, and take it from the stock. What cannot be an order is as if it had never been sent."""
        wish = Wish(data=request.data)
        if not wish.is_valid():
            operation().not_run()
            return JsonResponse(wish.errors, status=400)
        item, count = wish.validated_data["item"], wish.validated_data["count"]
        with transaction.atomic():
            found = Item.objects.select_for_update().filter(name=item).first()
            if found is None or found.stock < count:
                answer = JsonResponse({"error": "there is not enough of it"}, status=409)
            else:
                found.stock -= count
                found.save()
                order = Order.objects.create(
                    customer=request.user, item=found, count=count, reference=wish.validated_data["reference"]
                )
                answer = JsonResponse({"order": order.pk, "left": found.stock}, status=201)
            operation().complete_within(connection, answer)
        return answer

    def get(self, request: Any) -> JsonResponse:
        """How many orders they have; with a reference, of those that carry it."""
        orders = Order.objects.filter(customer=request.user)
        if (reference := request.GET.get("reference")) is not None:
            orders = orders.filter(reference=reference)
        return JsonResponse({"count": orders.count()})
