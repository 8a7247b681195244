"""Prepares the shop of examples/shop_django: customers with tokens, an item, a clerk of the admin."""

from __future__ import annotations

import os
import sys

os.environ["DJANGO_SETTINGS_MODULE"] = "examples.shop_django.settings"

import django

django.setup()

from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from rest_framework.authtoken.models import Token

from examples.shop_django.shop.models import Item

call_command("migrate", verbosity=0)
call_command("migrate", verbosity=0)  # a second time there is nothing to be done
for customer in ("alice", "bob"):
    Token.objects.create(user=User.objects.create_user(customer), key=customer)
Item.objects.create(name="lamp", stock=int(sys.argv[1]))
User.objects.create_superuser("root", password="root")
viewer = User.objects.create_user("viewer", password="viewer", is_staff=True)
viewer.user_permissions.add(Permission.objects.get(codename="view_record"))
User.objects.create_user("nobody", password="nobody", is_staff=True)
