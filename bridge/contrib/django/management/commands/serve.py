"""``manage.py serve``: bridge for production, with all of its options."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

__all__ = ["Command", "target"]


def target() -> str:
    """Return the application that the settings name, as a target.

    Raises:
        CommandError: They name none.
    """
    for name in ("ASGI_APPLICATION", "WSGI_APPLICATION"):
        path = getattr(settings, name, None)
        if path:
            module, _, attribute = path.rpartition(".")
            return f"{module}:{attribute}"
    raise CommandError("The settings have neither ASGI_APPLICATION nor WSGI_APPLICATION.")


class Command(BaseCommand):
    """Serves the project with bridge; the options are those of ``bridge run``."""

    help = "Serve the project with bridge, for production. The options are those of `bridge run`."
    requires_system_checks: list[str] = []  # noqa: RUF012 - Django's classes have it so

    def run_from_argv(self, argv: list[str]) -> None:
        """Hand the arguments over as they are.

        Raises:
            SystemExit: At the end.
        """
        from bridge.cli import main

        words = argv[2:]
        raise SystemExit(main(["run", *([] if words in (["--help"], ["-h"]) else [target()]), *words]))

    def handle(self, *args: Any, **options: Any) -> None:
        """Serve without options, for ``call_command``."""
        from bridge.cli import main

        main(["run", target()])
