"""The probes, metrics and commands of a process without a master."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from bridge._version import __version__
from bridge.operations.health import Condition
from bridge.operations.listener import Listener as AdminListener
from bridge.operations.listener import LoopWatch
from bridge.operations.routes import Command, Routes
from bridge.serving.commands import Commands, Steered
from bridge.serving.pages import application_metrics
from bridge.serving.sockets import Listener, accept_queues, url
from bridge.telemetry.metrics.collect import Family, collect, workers_of

if TYPE_CHECKING:
    import socket

    from bridge.telemetry.metrics.process import ProcessMetrics

__all__ = ["Administration", "State"]

# Seconds between two checks for clients that are too slow.
_INTERVAL = 1.0
# Seconds that the last metrics may take at the end.
_LAST = 2.0


class State(Steered, Protocol):
    """What the administration shows of a server.

    Attributes:
        has_started: It has accepted connections.
        kind: The application's interface in words.
        sockets: The listening sockets.
    """

    has_started: bool
    kind: str
    sockets: list[socket.socket]

    @property
    def scheme(self) -> str:
        """``https`` or ``http``."""
        ...

    def conditions(self) -> Sequence[Condition]:
        """Return what has to hold for it to be ready."""
        ...


class Administration:
    """Operates one server on its own loop.

    Args:
        server: The server.
        metrics: What it counts.
        loop: The loop.
        listeners: The addresses for probes and metrics.
        control: The control socket; None for none.
    """

    def __init__(
        self,
        server: State,
        metrics: ProcessMetrics,
        loop: asyncio.AbstractEventLoop,
        listeners: Sequence[Listener],
        control: Listener | None,
    ) -> None:
        self._server = server
        self._metrics = metrics
        self._admin = listeners
        self._listeners = [*listeners, *([] if control is None else [control])]
        self._loop = loop
        self._began = time.monotonic()
        self.application = application_metrics(server.config)
        self._commands = Commands(server, loop)
        self.reports: Mapping[str, Command] = self._commands.reports
        self.commands: Mapping[str, Command] = self._commands.commands
        watch = LoopWatch(loop)
        self._http = AdminListener(watch, Routes(self, watch.soon).answer)
        for listener in listeners:
            self._http.add(listener.sockets)
        if control is not None:
            self._http.add(control.sockets, control=True)
        self._pushing: threading.Thread | None = None
        self._ended = threading.Event()
        if server.config.pushes:
            from bridge.telemetry.metrics.push import Pusher

            pusher = Pusher(server.config, lambda: collect(metrics.arenas))
            self._pushing = threading.Thread(
                target=pusher.run, args=(self._ended.wait,), name="bridge-metrics", daemon=True
            )
            self._pushing.start()
        self._timer = loop.call_later(_INTERVAL, self._check)

    def _check(self) -> None:
        self._http.check(time.monotonic())
        self._timer = self._loop.call_later(_INTERVAL, self._check)

    def close(self) -> None:
        """Answer nothing any more."""
        self._timer.cancel()
        self._ended.set()
        if self._pushing is not None:
            self._pushing.join(_LAST)
        self._commands.close()
        self._http.close()
        for listener in self._listeners:
            listener.close()

    # ------------------------------------------------------------------ what is answered

    def families(self) -> list[Family]:
        """Return the metrics."""
        return collect(self._metrics.arenas, accept_queues(self._server.sockets))

    def status(self) -> dict[str, Any]:
        """Return the state of the server."""
        server = self._server
        return {
            "version": __version__,
            "pid": os.getpid(),
            "state": server.state,
            "uptime": round(time.monotonic() - self._began, 3),
            "application": server.config.target,
            "interface": server.kind,
            "listeners": [url(sock, server.scheme) for sock in server.sockets if sock.fileno() >= 0],
            "admin": [url(sock, "http") for listener in self._admin for sock in listener.sockets],
            "workers": workers_of(self._metrics.arenas),
        }

    def live(self) -> Sequence[Condition]:
        """The loop answers, so it runs."""
        return [Condition("loop", True, "the event loop runs")]

    def started(self) -> Sequence[Condition]:
        """The server has served."""
        started = self._server.has_started
        return [Condition("started", started, "started" if started else "starting")]

    def ready(self) -> Sequence[Condition]:
        """The server serves, and is not about to stop."""
        return self._server.conditions()
