"""The objects that hooks get: ``server`` and ``worker``, with gunicorn's attributes. Others can be set on them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

__all__ = ["ServerView", "WorkerView"]


class _App:
    """``worker.app`` and ``server.app``."""

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg
        self.callable: Any = None

    def wsgi(self) -> Any:
        """Return the application that serves; None before it is loaded."""
        return self.callable

    def load(self) -> Any:
        """Return the application that serves; None before it is loaded."""
        return self.callable


class ServerView:
    """The master, which gunicorn calls Arbiter.

    Attributes:
        cfg: The settings.
        log: The logger.
        pid: The master's process.
        address: The addresses of the sockets.
        num_workers: How many workers there should be.
        WORKERS: Process id -> worker.
        LISTENERS: The sockets.
    """

    def __init__(self, cfg: Any, log: Any, count: int) -> None:
        self.cfg = cfg
        self.log = log
        self.app = _App(cfg)
        self.pid = os.getpid()
        self.master_pid = 0
        self.num_workers = count
        self.worker_age = 0
        self.timeout = cfg.timeout
        self.proc_name = cfg.proc_name
        self.address: list[Any] = []
        self.WORKERS: dict[int, WorkerView] = {}
        self.LISTENERS: list[Any] = []


class _Tmp:
    """``worker.tmp``: in gunicorn, the file by which a worker shows that it is alive."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def notify(self) -> None:
        """Note the time, for :meth:`last_update`. bridge's heartbeat does not depend on it."""
        self._last = time.monotonic()

    def last_update(self) -> float:
        """Return the time of the last :meth:`notify`."""
        return self._last

    def fileno(self) -> int:
        """Return no file."""
        return -1

    def close(self) -> None:
        """Do nothing."""


class WorkerView:
    """A worker. The same object stands for it in all hooks of one process.

    Args:
        server: The master.
        age: 1 for the first worker that was started, 2 for the second, and so on.

    Attributes:
        pid: Its process; ``[booting]`` before the fork.
        nr: The requests that it has answered, if pre_request or post_request is set; otherwise 0.
        app: Its application, by ``app.wsgi()`` and ``app.callable``.
        retire: Called when ``alive`` is set to false.
    """

    def __init__(self, server: ServerView, age: int) -> None:
        self.age = age
        self.pid: Any = "[booting]"
        self.ppid = server.pid
        self.cfg = server.cfg
        self.log = server.log
        self.app = _App(server.cfg)
        self.sockets = server.LISTENERS
        self.timeout = server.timeout
        self.booted = False
        self.aborted = False
        self.reloader = None
        self.nr = 0
        self.max_requests = server.cfg.max_requests or 0
        self.tmp = _Tmp()
        self.wsgi: Any = None
        self.retire: Callable[[], None] = lambda: None
        self._alive = True

    @property
    def alive(self) -> bool:
        """The worker serves on. Set to false, it asks for a successor and ends when that one serves."""
        return self._alive

    @alive.setter
    def alive(self, value: bool) -> None:
        before, self._alive = self._alive, bool(value)
        if before and not value:
            self.retire()

    def notify(self) -> None:
        """Note that the worker lives."""
        self.tmp.notify()

    def __str__(self) -> str:
        return f"<Worker {self.pid}>"
