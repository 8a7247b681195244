"""What the shop has, and what was ordered."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class Item(models.Model):
    """Something for sale."""

    name = models.CharField(max_length=100, unique=True)
    stock = models.PositiveIntegerField()

    def __str__(self) -> str:
        return f"{self.name}, {self.stock} left"


class Order(models.Model):
    """What somebody has ordered."""

    customer = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT)
    item = models.ForeignKey(Item, on_delete=models.PROTECT)
    count = models.PositiveIntegerField()
    reference = models.CharField(max_length=100, blank=True)

    def __str__(self) -> str:
        return f"{self.count} of {self.item_id} for {self.customer_id}"
