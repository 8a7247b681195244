"""What a user names: an application, a Django project."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from retrysafe.errors import ConfigurationError, RetrysafeError
from retrysafe.server.named import named

_NAME = re.compile(r"[\w.]+:[\w.]+")
_SETTINGS = re.compile(r"""DJANGO_SETTINGS_MODULE["'],\s*["']([\w.]+)["']""")
_DEPTH_MAX = 32  # of layers of middleware


class TargetUnreachable(RetrysafeError):
    """The target cannot be imported."""


def application_of(target: str, *, is_factory: bool = False) -> Any:
    """The application that a text names.

    Args:
        target: `MODULE:APP`.
        is_factory: what it names makes the application when it is called.

    Raises:
        ConfigurationError: the text can name none.
        TargetUnreachable: it cannot be imported, or made.
    """
    if not _NAME.fullmatch(target):
        fault = f'"{target}" names nothing to audit; give MODULE:APP, --django SETTINGS, or an OpenAPI document'
        raise ConfigurationError([f"{fault} (.json, .yaml, or a URL)"])
    try:
        found = named(target)
    except ConfigurationError as error:
        raise TargetUnreachable(str(error)) from error
    except SystemExit as error:
        raise TargetUnreachable(f'"{target}": its module ends the process while it is imported') from error
    return _made(found, target) if is_factory else found


def _made(factory: Any, target: str) -> Any:
    try:
        return factory()
    except ConfigurationError:
        raise
    except Exception as error:
        raise TargetUnreachable(f'"{target}" makes no application: {type(error).__name__}: {error}') from error


def is_django(application: Any) -> bool:
    """Whether an application, or what its layers of middleware are around, is one of Django's."""
    for _ in range(_DEPTH_MAX):
        if application is None:
            return False
        module = getattr(application, "__module__", "") or ""
        if module.startswith("django.core.handlers.") or module == "retrysafe.django.asgi":
            return True
        application = getattr(application, "app", None)
    return False


def django_settings(said: str | None) -> str | None:
    """The settings of the Django project that is to be audited: as said, by the environment, or by `manage.py` here.

    Args:
        said: by the user.
    """
    if said or (said := os.environ.get("DJANGO_SETTINGS_MODULE")):
        return said
    manage = Path("manage.py")
    found = _SETTINGS.search(manage.read_text("utf-8")) if manage.is_file() else None
    return found[1] if found else None


def import_from_here() -> None:
    """Have modules looked for in the present folder too, as servers do."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
