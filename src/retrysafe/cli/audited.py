"""What `retrysafe audit` is to look at: an application, a Django project, or an OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrysafe.audit import targets
from retrysafe.audit.applications import surface_of
from retrysafe.audit.documents import is_document, surface_of_document
from retrysafe.audit.surface import Surface
from retrysafe.errors import ConfigurationError
from retrysafe.gateway import config as gateway_config
from retrysafe.gateway.published import build_declared
from retrysafe.gateway.settings_file import SettingsFile


def audited(options: Mapping[str, Any]) -> Surface:
    """What the user names.

    Args:
        options: of `retrysafe audit`, by their names.

    Raises:
        ConfigurationError: they name nothing, or it cannot be used.
        RetrysafeError: it cannot be imported or reached.
    """
    target = options["target"]
    settings = options["django"] if target else targets.django_settings(options["django"])
    if settings:
        if target:
            raise ConfigurationError([f"name either {target} or --django, not both"])
        return _of_django(settings)
    if not target:
        fault = "there is nothing to audit: give MODULE:APP, --django SETTINGS, or an OpenAPI document"
        raise ConfigurationError([f"{fault}; here is no manage.py, and DJANGO_SETTINGS_MODULE is not set"])
    if is_document(target):
        gateway = gateway_config.read({}, {}, SettingsFile(options["gateway"])) if options["gateway"] else None
        return surface_of_document(target, build_declared(gateway) if gateway else None)
    application = targets.application_of(target, is_factory=options["factory"])
    return _of_django(None, target) if targets.is_django(application) else surface_of(application, target)


def _of_django(settings: str | None, target: str = "") -> Surface:
    try:
        from retrysafe.django.surface import surface_of_project  # noqa: PLC0415 - needs an extra
    except ModuleNotFoundError as missing:
        raise ConfigurationError([f'this needs {missing.name}: pip install "retrysafe[django]"']) from missing
    return surface_of_project(settings, target)
