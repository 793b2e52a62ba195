"""Heartbeats of an event loop, and the stacks of all threads when they stop."""

from __future__ import annotations

import asyncio
import faulthandler
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from bridge.core.log import gen_log

__all__ = [
    "DUMP_SIGNAL",
    "Heartbeat",
    "cancel_stacks",
    "interval",
    "write_no_stacks",
    "write_stacks_later",
    "write_stacks_on_signal",
]

#: The signal on which a worker writes the stacks of its threads, even if none of them can run Python code. Systems
#: without it have no workers.
DUMP_SIGNAL = getattr(signal, "SIGUSR2", signal.SIGTERM)


def interval(timeout: float | None) -> float:
    """Return the seconds between two beats of a loop that may stand still for *timeout* seconds."""
    return 1.0 if timeout is None else min(1.0, timeout / 4)


def write_stacks_later(descriptor: int, seconds: float) -> None:
    """Write the stacks of all threads to *descriptor* in *seconds*, unless this is called again before."""
    faulthandler.dump_traceback_later(seconds, file=descriptor)


def cancel_stacks() -> None:
    """Undo :func:`write_stacks_later`."""
    faulthandler.cancel_dump_traceback_later()


def write_stacks_on_signal(descriptor: int) -> None:
    """Write the stacks of all threads to *descriptor* whenever DUMP_SIGNAL arrives."""
    faulthandler.register(DUMP_SIGNAL, file=descriptor, all_threads=True, chain=False)


def write_no_stacks() -> None:
    """Undo :func:`write_stacks_on_signal`, in a child of the application's."""
    faulthandler.unregister(DUMP_SIGNAL)


class Heartbeat:
    """Beats on the loop, and watches the threads that run WSGI requests.

    Args:
        loop: The loop.
        timeout: Seconds after which a thread that still runs the same request is reported; None for never.
        beat: Called at every beat.
        stuck: Called once, when every thread of a full pool has run its request for the timeout and more requests
            wait.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        timeout: float | None,
        beat: Callable[[], None],
        stuck: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._timeout = timeout
        self._beat = beat
        self._on_stuck: Callable[[], None] | None = stuck
        self._since: dict[int, tuple[object, float]] = {}
        self._reported: dict[int, object] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._run()

    def stop(self) -> None:
        """Stop beating."""
        if self._timer is not None:
            self._timer.cancel()

    def _run(self) -> None:
        self._timer = self._loop.call_later(interval(self._timeout), self._run)
        self._beat()
        if self._timeout is not None and self._stuck(self._timeout) and self._on_stuck is not None:
            self._on_stuck()
            self._on_stuck = None

    def _stuck(self, timeout: float) -> bool:
        """Log the threads that have run one job for too long. Tell whether a pool has only such threads and a queue."""
        # Looked up, not imported: a server without WSGI applications does not need that module.
        threadpool = sys.modules.get("bridge.adapters.wsgi.threadpool")
        if threadpool is None:
            return False
        now = self._loop.time()
        workers: list[Any] = [thread for thread in threading.enumerate() if isinstance(thread, threadpool.Worker)]
        since = {}
        stuck = []
        for worker in workers:
            job = worker.job
            if job is None:
                continue
            before = self._since.get(id(worker))
            since[id(worker)] = before if before is not None and before[0] is job else (job, now)
            if now - since[id(worker)][1] >= timeout:
                stuck.append(worker)
        self._since = since
        for worker in stuck:
            if self._reported.get(id(worker)) is not worker.job:
                self._reported[id(worker)] = worker.job
                gen_log.warning("%s has been busy for %g s; it is here:\n%s", worker.name, timeout, worker.stack())
        return bool(stuck) and any(
            pool.queue and len([worker for worker in stuck if worker.pool is pool]) >= pool.maximum
            for pool in {worker.pool for worker in stuck}
        )
