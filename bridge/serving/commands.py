"""What the control socket of a process without a master lets its owner do."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from bridge.core.log import gen_log
from bridge.operations.messages import Answer, Respond, as_json
from bridge.operations.parameters import LEVELS, choice, duration, only
from bridge.operations.routes import Command, Refused

if TYPE_CHECKING:
    from bridge.config import Config

__all__ = ["Commands", "Steered"]

# Seconds for which idle connections stay open when a drain without --drain-delay begins.
_DRAIN_GRACE = 30.0


class Steered(Protocol):
    """A server, as commands see it."""

    config: Config

    @property
    def state(self) -> str:
        """``starting``, ``serving``, ``draining`` or ``stopping``."""
        ...

    def ask_stop(self) -> None:
        """Stop as on SIGTERM."""

    def drain(self, grace: float, *, notify: bool = True) -> None:
        """Announce the end, and go on serving."""

    def undrain(self) -> None:
        """Serve as before :meth:`drain`."""

    def reopen_logs(self) -> None:
        """Open the log files again."""

    def dump(self) -> dict[str, Any]:
        """Return what this process does right now."""
        ...


class Commands:
    """Carries out the commands.

    Args:
        server: The server.
        loop: Its loop.
    """

    def __init__(self, server: Steered, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._level_timer: asyncio.TimerHandle | None = None
        self.reports: dict[str, Command] = {"/config": self._config, "/dump": self._dump}
        self.commands: dict[str, Command] = {
            "/drain": self._drain,
            "/undrain": self._undrain,
            "/stop": self._stop,
            "/log-level": self._log_level,
            "/reopen": self._reopen,
            "/reload": self._needs_workers,
            "/scale": self._needs_workers,
            "/recycle": self._needs_workers,
        }

    def close(self) -> None:
        """End what commands have changed for a limited time."""
        if self._level_timer is not None:
            self._level_timer.cancel()

    def _config(self, query: Mapping[str, str], respond: Respond) -> None:
        only(query)
        config = self._server.config
        shown = {name: getattr(config, name) for name, row in config.rows.items() if not row.secret}
        respond(Answer(200, json.dumps(shown, indent=2, default=str).encode() + b"\n", "application/json"))

    def _dump(self, query: Mapping[str, str], respond: Respond) -> None:
        only(query)
        respond(as_json({"workers": [{"worker": 0, "pid": os.getpid(), **self._server.dump()}]}))

    def _drain(self, query: Mapping[str, str], respond: Respond) -> None:
        only(query)
        server = self._server
        if server.state in {"starting", "stopping"}:
            raise Refused(409, f"not while the server is {server.state}")
        delay = server.config.drain_delay
        if server.state != "draining":
            gen_log.info("Draining: serving on, and not ready, until a stop or `bridge undrain`")
            server.drain(delay or _DRAIN_GRACE, notify=False)
        respond(as_json({"draining": True, "delay": delay}))

    def _undrain(self, query: Mapping[str, str], respond: Respond) -> None:
        only(query)
        if self._server.state != "draining":
            raise Refused(409, f"the server is {self._server.state}, not draining")
        self._server.undrain()
        gen_log.info("Not draining any more")
        respond(as_json({"draining": False}))

    def _stop(self, query: Mapping[str, str], respond: Respond) -> None:
        only(query)
        respond(as_json({"stopping": True, "pid": os.getpid()}, 202))
        if self._server.state != "stopping":
            self._server.ask_stop()

    def _log_level(self, query: Mapping[str, str], respond: Respond) -> None:
        only(query, "level", "for")
        level = choice(query, "level", LEVELS)
        seconds = duration(query, "for") if query.get("for") else None
        if self._level_timer is not None:
            self._level_timer.cancel()
            self._level_timer = None
        if seconds is not None:
            self._level_timer = self._loop.call_later(seconds, self._set_level, self._server.config.log_level)
        self._set_level(level)
        respond(as_json({"level": level, "for": seconds}))

    @staticmethod
    def _set_level(level: str) -> None:
        logging.getLogger("bridge").setLevel(level.upper())
        gen_log.info("Messages of level %s and above are logged from now on", level)

    def _reopen(self, query: Mapping[str, str], respond: Respond) -> None:
        only(query)
        self._server.reopen_logs()
        respond(as_json({"reopened": True}))

    @staticmethod
    def _needs_workers(query: Mapping[str, str], respond: Respond) -> None:
        raise Refused(409, "this needs a server with --workers")
