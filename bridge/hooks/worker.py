"""The hooks of a worker."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

from bridge.apps.detection import Interface
from bridge.apps.lifecycle import MountPoint
from bridge.apps.loading import TargetError
from bridge.hooks.functions import Functions
from bridge.hooks.logger import overrides_access
from bridge.hooks.objects import ServerView, WorkerView
from bridge.telemetry import messages

__all__ = ["WorkerHooks"]

_REQUESTS = ("pre_request", "post_request")


class WorkerHooks:
    """Calls the functions whose points lie in a worker.

    Args:
        functions: The functions.
        server: The object for the master.
        worker: The object for this worker.
    """

    def __init__(self, functions: Functions, server: ServerView, worker: WorkerView) -> None:
        self._functions = functions
        self._server = server
        self._worker = worker
        self._interrupted = False
        self._abort_asked = "worker_abort" in functions
        self.terminate: Callable[[int, Any], Any] | None = None

    def forked(self) -> None:
        """Call post_fork."""
        self._functions.call("post_fork", self._server, self._worker)
        if self._abort_asked:
            signal.signal(signal.SIGABRT, self._abort)

    def initialised(self, mount_points: Sequence[MountPoint] | None, end: Callable[[], None]) -> None:
        """Call post_worker_init: the application is loaded, and the loop does not run yet.

        Args:
            mount_points: The applications.
            end: Begins a graceful stop. The function may wrap the handler of SIGTERM, which does the same.
        """
        worker = self._worker
        app = mount_points[0].app if mount_points else None
        worker.app.callable = worker.wsgi = self._server.app.callable = app
        worker.booted = True

        def terminate(number: int, frame: object) -> None:
            end()

        before = signal.signal(signal.SIGTERM, terminate)
        self._functions.call("post_worker_init", worker)
        changed = signal.getsignal(signal.SIGTERM)
        if changed is terminate:
            signal.signal(signal.SIGTERM, before)
        elif callable(changed):
            self.terminate = changed

    def serving(self, loop: asyncio.AbstractEventLoop, retire: Callable[[], None]) -> None:
        """Let ``worker.alive = False`` call *retire* on the loop."""

        def soon() -> None:
            loop.call_soon_threadsafe(retire)

        self._worker.retire = soon
        if not self._worker.alive:
            retire()

    def stopping(self) -> None:
        """Call the SIGTERM handler that the user has installed, as a signal would."""
        if self.terminate is not None:
            handler, self.terminate = self.terminate, None
            try:
                handler(signal.SIGTERM, None)
            except SystemExit:
                pass  # the stop has begun anyway
            except Exception:
                self._server.log.exception("The handler of SIGTERM raised")

    def interrupted(self) -> bool:
        """Call worker_int, once. Return False if it asks for the end at once."""
        if self._interrupted:
            return True
        self._interrupted = True
        return self._functions.call("worker_int", self._worker)

    def _abort(self, number: int, frame: object) -> None:
        self._worker.aborted = True
        self._functions.call("worker_abort", self._worker)
        messages.flush()
        os._exit(1)  # the main thread is stuck, so a normal end would never come

    def stuck(self) -> None:
        """Call worker_abort: every thread is stuck."""
        self._functions.call("worker_abort", self._worker)

    def exiting(self) -> None:
        """Call worker_exit."""
        self._functions.call("worker_exit", self._server, self._worker)

    def wrap(self, mount_points: list[MountPoint]) -> list[MountPoint]:
        """Return the applications with pre_request and post_request around them, if there are such functions.

        Raises:
            TargetError: An application speaks neither ASGI nor WSGI.
        """
        logs = overrides_access(type(self._worker.log))
        if not logs and not any(point in self._functions for point in _REQUESTS):
            return mount_points
        from bridge.hooks.requests import ASGIHooks, WSGIHooks

        found = []
        for point in mount_points:
            if point.interface is Interface.WSGI:
                found.append(point._replace(app=WSGIHooks(point.app, self._functions, self._worker, logs=logs)))
            elif point.interface is Interface.ASGI3:
                found.append(point._replace(app=ASGIHooks(point.app, self._functions, self._worker)))
            else:
                raise TargetError("hooks: pre_request and post_request are for WSGI and ASGI 3 applications")
        return found
