"""The hooks of a master."""

from __future__ import annotations

import os
import signal
from typing import Any

from bridge.config import Config
from bridge.config.hooks import Hooks
from bridge.errors import ConfigError
from bridge.hooks.functions import Functions
from bridge.hooks.logger import make_logger
from bridge.hooks.objects import ServerView, WorkerView
from bridge.hooks.seam import NoHooks
from bridge.hooks.settings import SettingsView
from bridge.hooks.worker import WorkerHooks

__all__ = ["MasterHooks"]


class MasterHooks(NoHooks):
    """Calls the functions whose points lie in the master.

    Args:
        config: The settings.

    Raises:
        ConfigError: A function cannot be imported.
    """

    def __init__(self, config: Config) -> None:
        self._take(config)
        count = config.workers or 1
        self._server = ServerView(self._cfg, make_logger(self._logger_class, self._cfg), count)
        self._ages = 0

    def _take(self, config: Config) -> None:
        hooks = config.hooks if isinstance(config.hooks, Hooks) else Hooks(config.hooks)
        self._functions = Functions(hooks)
        self._logger_class = hooks.logger_class
        self._cfg = SettingsView(config, hooks.settings)

    def starting(self, sockets: list[Any], count: int) -> None:
        """Call nworkers_changed, on_starting and when_ready, in gunicorn's order."""
        server = self._server
        server.num_workers = count
        self._call("nworkers_changed", server, count, None)
        self._functions.call("on_starting", server, may_exit=True)
        server.LISTENERS = sockets
        server.address = [sock.getsockname() for sock in sockets]
        self._functions.call("when_ready", server, may_exit=True)

    def _call(self, point: str, *arguments: object) -> None:
        self._functions.call(point, *arguments)

    def new_worker(self, slot: int) -> WorkerView:
        """Call pre_fork."""
        self._ages += 1
        self._server.worker_age = self._ages
        worker = WorkerView(self._server, self._ages)
        self._call("pre_fork", self._server, worker)
        return worker

    def forked(self, worker: WorkerView, pid: int) -> None:
        """Remember the worker by its process id."""
        worker.pid = pid
        self._server.WORKERS[pid] = worker

    def in_worker(self, worker: WorkerView) -> WorkerHooks:
        """Return the hooks of the worker, in the child."""
        worker.pid = os.getpid()
        return WorkerHooks(self._functions, self._server, worker)

    def ended(self, pid: int) -> None:
        """Call child_exit."""
        worker = self._server.WORKERS.pop(pid, None)
        if worker is not None:
            self._call("child_exit", self._server, worker)

    def stalled(self, pid: int, *, abort: bool) -> None:
        """Log gunicorn's words, which monitoring looks for, and let the worker call worker_abort."""
        self._server.log.critical("WORKER TIMEOUT (pid:%s)", pid)
        if abort and "worker_abort" in self._functions:
            os.kill(pid, signal.SIGABRT)

    def number_changed(self, new: int) -> None:
        """Call nworkers_changed."""
        old, self._server.num_workers = self._server.num_workers, new
        self._call("nworkers_changed", self._server, new, old)

    def reloading(self, config: Config, count: int) -> None:
        """Take new functions and settings; call on_reload and nworkers_changed."""
        self._call("on_reload", self._server)
        try:
            self._take(config)
        except ConfigError as exc:
            self._server.log.error("The old hooks stay in use: %s", exc)
        self._server.cfg = self._server.app.cfg = self._cfg
        self.number_changed(count)

    def executing(self) -> None:
        """Call pre_exec."""
        self._call("pre_exec", self._server)

    def exiting(self) -> None:
        """Call on_exit."""
        self._call("on_exit", self._server)
