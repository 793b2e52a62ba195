"""``manage.py serve``: bridge for production, with all of its options."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

__all__ = ["Command", "target"]

# The interpreter's options, such as -X dev, -W error and -B, as multiprocessing passes them to its children.
_FLAGS: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # there is no public name


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
        words = argv[2:]
        words = ["run", *([] if words in (["--help"], ["-h"]) else [target()]), *words]
        if not hasattr(os, "fork"):
            from bridge.cli import main

            raise SystemExit(main(words))
        # Django has imported the project's models in this process, and forked workers would keep them at a reload.
        path = [os.path.abspath(entry) for entry in sys.path]
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path))
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, *_FLAGS, "-m", "bridge", *words])  # noqa: S606 - our own program

    def handle(self, *args: Any, **options: Any) -> None:
        """Serve without options, for ``call_command``."""
        from bridge.cli import main

        main(["run", target()])
