"""The app, and the check of its place."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig, apps
from django.core.checks import Error, register

__all__ = ["BridgeConfig", "check_place"]


class BridgeConfig(AppConfig):
    """The app ``bridge.contrib.django``."""

    name = "bridge.contrib.django"
    label = "bridge"
    verbose_name = "bridge"

    def ready(self) -> None:
        """Register the check."""
        register(check_place)


def check_place(app_configs: Any, **kwargs: Any) -> list[Error]:
    """Report an error if another app with a runserver comes first."""
    names = [config.name for config in apps.get_app_configs()]
    own = names.index("bridge.contrib.django")
    first = [name for name in ("django.contrib.staticfiles", "daphne") if name in names[:own]]
    if not first:
        return []
    return [
        Error(
            f"bridge.contrib.django comes after {' and '.join(first)}, whose runserver is used.",
            hint="Put bridge.contrib.django first in INSTALLED_APPS.",
            id="bridge.E001",
        )
    ]
