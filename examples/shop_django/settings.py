"""Settings of the shop. The records of retrysafe are in the shop's own database."""

from __future__ import annotations

import os
from typing import Any

DATABASE = os.environ.get("SHOP_DATABASE", "shop.db")
SECRET_KEY = os.environ.get("SHOP_SECRET_KEY", "of an example; a real shop has one of its own")
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "examples.shop_django.urls"
WSGI_APPLICATION = "examples.shop_django.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# In SQLite a transaction takes the right to write at its beginning: of two that read first, one could not go on.
_ON_SQLITE: dict[str, Any] = {
    "ENGINE": "django.db.backends.sqlite3", "NAME": DATABASE,
    "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
}  # fmt: skip
_ON_POSTGRESQL: dict[str, Any] = {
    "ENGINE": "django.db.backends.postgresql", "NAME": DATABASE, "USER": "owner", "HOST": "127.0.0.1",
    "PORT": os.environ.get("SHOP_POSTGRES_PORT"),
}  # fmt: skip
DATABASES = {"default": _ON_POSTGRESQL if "SHOP_POSTGRES_PORT" in os.environ else _ON_SQLITE}

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "rest_framework",
    "rest_framework.authtoken",
    "retrysafe.django",
    "examples.shop_django.shop",
]

MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "retrysafe.django.IdempotencyMiddleware",  # behind what authenticates
]

IDEMPOTENCY = {
    "STORE": "database:default",
    "SCOPE": "user",
    "POLICY": {"lease": os.environ.get("SHOP_LEASE", "10s"), "lifetime": "7d"},
    "STATUS_PATH": "/idempotency/requests",
    "CONTRACT_PATH": "/.well-known/idempotency-contract",
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.TokenAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
}

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
