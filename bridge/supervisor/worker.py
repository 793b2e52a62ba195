"""The life of a worker process: serve, tell the master how it is, do what it says."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from typing import Any

from bridge.apps.lifecycle import MountPoint
from bridge.apps.loading import TargetError
from bridge.config import Config
from bridge.core.log import gen_log
from bridge.errors import BridgeError, ConfigError, LifespanFailed
from bridge.serving.exits import BIND_FAILED, LIFESPAN_FAILED, OK, TARGET_FAILED, USAGE
from bridge.serving.loops import Signals, process_runner
from bridge.serving.privileges import drop_privileges
from bridge.serving.server import Server, run_prepared
from bridge.serving.sockets import Listener
from bridge.supervisor.channel import Channel
from bridge.supervisor.heartbeat import Heartbeat, write_stacks_on_signal
from bridge.telemetry.logs import error_descriptor

__all__ = ["IDLE_GRACE", "run_worker"]

#: Seconds for which a worker that is replaced keeps idle connections, so that the last response announces the end.
IDLE_GRACE = 5.0


def run_worker(
    config: Config,
    app: Any,
    listeners: Sequence[Listener],
    channel: Channel,
    mount_points: list[MountPoint] | None = None,
) -> int:
    """Serve until the master says otherwise, or is gone; return the process's exit status.

    Args:
        config: The settings.
        app: The application if there is one already; else ``config.target`` is imported.
        listeners: Shared with the master and the other workers.
        channel: To the master.
        mount_points: The applications, if the master has loaded them.
    """
    _default_signals()
    channel.end_process_when_closed()  # nobody else ends an import that hangs
    write_stacks_on_signal(error_descriptor(config))
    try:
        drop_privileges(config)
        with process_runner(config.loop, lambda: None) as runner:
            worker = _Worker(config, Server(config, app, listeners, mount_points), channel)
            run_prepared(runner, worker.server, worker.run)
    except BridgeError as exc:
        if isinstance(exc, TargetError):
            sys.stderr.write(exc.app_traceback)
        code, text = failure(config, exc)
        channel.end_nothing()
        channel.send("failed", code, text)
        return code
    return OK


def failure(config: Config, exc: BridgeError) -> tuple[int, str]:
    """Return the exit status and the line for a server that cannot start."""
    if isinstance(exc, TargetError):
        return TARGET_FAILED, str(exc)
    if isinstance(exc, LifespanFailed):
        return LIFESPAN_FAILED, f"{config.target or 'the application'}: lifespan startup failed: {exc}"
    return USAGE if isinstance(exc, ConfigError) else BIND_FAILED, str(exc)


def _default_signals() -> None:
    """Undo what the master does with signals. Those of the terminal go to all processes; the master decides."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCHLD, signal.SIGWINCH):
        signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
        signal.signal(number, _nothing)  # not SIG_IGN, which the application's own children would inherit


def _nothing(number: int, frame: object) -> None:
    pass


class _Worker:
    """The part that runs on the loop."""

    def __init__(self, config: Config, server: Server, channel: Channel) -> None:
        self.server = server
        self._config = config
        self._channel = channel
        server.on_limit = self._finished
        server.on_draining = lambda: channel.send("deaf")

    async def run(self) -> None:
        """Serve."""
        loop = asyncio.get_running_loop()
        server = self.server
        loop.add_reader(self._channel.fileno(), self._told)
        try:
            with Signals((signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)) as signals:
                signals.deliver(self._signalled)
                async with server:
                    self._channel.end_nothing()  # the loop takes over
                    self._channel.send("ready", server.kind)
                    heart = Heartbeat(loop, self._config.timeout_worker, self._beat, self._stuck)
                    try:
                        await server.stopped()
                        await server.shutdown()
                    finally:
                        heart.stop()
        finally:
            loop.remove_reader(self._channel.fileno())

    def _beat(self) -> None:
        self._channel.send("beat")

    def _stuck(self) -> None:
        self._channel.send("stuck")

    def _finished(self) -> None:
        """The worker has served its time: ask for a successor, and serve until it is there."""
        self._channel.send("finished")

    def _told(self) -> None:
        """Do what the master says."""
        server = self.server
        for word, *values in self._channel.receive():
            if word == "retire":
                server.stop(idle_grace=IDLE_GRACE)
            elif word == "stop":
                (timeout,) = values
                assert timeout is None or isinstance(timeout, float)
                server.stop(timeout)
            elif word == "force":
                server.force()
            elif word == "certificates":
                server.reload_certificates()
            elif word == "reopen":
                server.reopen_logs()
        if not self._channel.open:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            if not server.should_exit:
                gen_log.error("The master process is gone: stopping")
                server.stop()

    def _signalled(self, number: int) -> None:
        """SIGTERM from somebody else than the master: ask for a successor. The other signals are the master's."""
        if number == signal.SIGTERM and not self.server.should_exit:
            self._finished()
        elif number == signal.SIGUSR1:
            self.server.reopen_logs()
