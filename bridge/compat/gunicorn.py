"""A stand-in for gunicorn: ``BaseApplication``, and what configuration files import."""

from __future__ import annotations

import os
import sys
from typing import Any

from bridge.apps.loading import Deferred
from bridge.compat import importable, put_in_place
from bridge.config import Config as Settings
from bridge.dialects.command import config_of, refuse
from bridge.dialects.gunicorn import DIALECT, with_gunicorns_defaults
from bridge.dialects.gunicornfile import checked, file_settings
from bridge.dialects.table import Option, Translation, Usage
from bridge.errors import ConfigError
from bridge.hooks.logger import Logger
from bridge.hooks.requests import RequestView, ResponseView
from bridge.telemetry.logs import stand_for

__all__ = ["Application", "BaseApplication", "install"]

_ROWS = {row.name: row for row in DIALECT.rows}


class Cfg:
    """``self.cfg`` of an application: gunicorn's settings by name."""

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that exist, by name."""
        return dict(_ROWS)

    def set(self, name: str, value: Any) -> None:
        """Set one of them.

        Raises:
            AttributeError: There is no such setting.
        """
        if name not in _ROWS:
            raise AttributeError(f"No configuration setting for: {name}")
        self.given[name] = value

    def __getattr__(self, name: str) -> Any:
        if name in _ROWS:
            return self.given.get(name)
        raise AttributeError(name)


class BaseApplication:
    """An application that starts gunicorn, as gunicorn's documentation describes it. It starts bridge.

    Args:
        usage: Ignored.
        prog: Ignored.
    """

    def __init__(self, usage: str | None = None, prog: str | None = None) -> None:
        self.usage = usage
        self.prog = prog
        self.callable: Any = None
        self.cfg = Cfg()
        self.do_load_config()

    def do_load_config(self) -> None:
        """Reset the settings, then load them."""
        self.cfg = Cfg()
        self.load_config()

    def load_config(self) -> None:
        """Set the settings of ``self.cfg``. A derived class overrides this."""
        raise NotImplementedError

    def init(self, parser: Any, opts: Any, args: Any) -> Any:
        """Do nothing."""

    def load(self) -> Any:
        """Return the WSGI or ASGI application. A derived class overrides this. Each worker calls it."""
        raise NotImplementedError

    def load_config_from_file(self, filename: str) -> None:
        """Take the settings of a file."""
        for option in file_settings(DIALECT.rows, filename):
            self.cfg.given[option.row.name] = option.value

    def reload(self) -> None:
        """Read the settings again."""
        self.do_load_config()

    def wsgi(self) -> Any:
        """Return the application."""
        if self.callable is None:
            self.callable = self.load()
        return self.callable

    def settings(self) -> Settings:
        """Return bridge's settings.

        Raises:
            ConfigError: One of them cannot be used.
        """
        translation = Translation(check_only=True)  # the application is an object: no target is needed
        options = [Option(_ROWS[name], value, name) for name, value in self.cfg.given.items()]
        try:
            for option in options:
                translation.take(checked(option))
            DIALECT.finish(translation)
        except Usage as exc:
            raise ConfigError(str(exc)) from exc
        refuse(DIALECT, translation)
        translation.layer.pop("target", None)
        return config_of(translation, os.environ)

    def run(self) -> None:
        """Serve until a signal asks for a stop, and end the process.

        Raises:
            SystemExit: At the end.
        """
        from bridge.supervisor.run import run

        stand_for("gunicorn")
        try:
            status = run(self.settings(), Deferred(self.wsgi), read_config=self._again)
        except ConfigError as exc:
            sys.stderr.write(f"{getattr(exc, 'app_traceback', '')}bridge: {exc}\n")
            status = 1
        sys.exit(status)

    def _again(self) -> Settings:
        self.reload()
        return self.settings()


class Application(BaseApplication):
    """The same as BaseApplication. In gunicorn, this class also reads the command line."""

    def load_config(self) -> None:
        """Do nothing."""


class WSGIApplication(Application):
    """gunicorn's own command."""

    def run(self) -> None:
        """Serve as the command ``gunicorn`` would.

        Raises:
            SystemExit: At the end.
        """
        from bridge.cli import main

        sys.exit(main(["gunicorn", *sys.argv[1:]]))


def _run(prog: str | None = None) -> None:
    WSGIApplication("%(prog)s [OPTIONS] [APP_MODULE]", prog=prog).run()


class _Worker:
    """Names of worker classes, for files that derive from them."""


_Worker.__module__ = "gunicorn.workers.base"
_Threads = type("ThreadWorker", (_Worker,), {"__module__": "gunicorn.workers.gthread"})
_Sync = type("SyncWorker", (_Worker,), {"__module__": "gunicorn.workers.sync"})


def install() -> None:
    """Replace gunicorn's names with those of this module."""
    gunicorn: Any = importable("gunicorn")
    base = {"BaseApplication": BaseApplication, "Application": Application}
    places: dict[str, dict[str, Any]] = {
        "gunicorn": {},
        "gunicorn.app": {},
        "gunicorn.app.base": base,
        "gunicorn.app.wsgiapp": {"WSGIApplication": WSGIApplication, "run": _run},
    }
    if gunicorn is None or getattr(gunicorn, "__stand_in__", False):
        places["gunicorn"] = {
            "SERVER": "bridge",
            "SERVER_SOFTWARE": "bridge",
            "version_info": (27, 0, 0),
            "__version__": "27.0.0",
        }
        arbiter = type("Arbiter", (), {"APP_LOAD_ERROR": 4, "WORKER_BOOT_ERROR": 3})
        places |= {
            "gunicorn.glogging": {"Logger": Logger, "CONFIG_DEFAULTS": with_gunicorns_defaults({})},
            "gunicorn.arbiter": {"Arbiter": arbiter},
            "gunicorn.http": {},
            "gunicorn.http.message": {"Request": RequestView},
            "gunicorn.http.wsgi": {"Response": ResponseView},
            "gunicorn.workers": {},
            "gunicorn.workers.base": {"Worker": _Worker},
            "gunicorn.workers.gthread": {"ThreadWorker": _Threads, "TConn": object},
            "gunicorn.workers.sync": {"SyncWorker": _Sync},
            "gunicorn.util": {},
            "gunicorn.config": {"Config": Cfg},
        }
    put_in_place(places)
