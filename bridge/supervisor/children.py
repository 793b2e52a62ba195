"""Reaps the children of a master that have ended, and leaves the application's children to the application.

With ``--preload``, hooks, or in a program that has called ``bridge.run``, other code runs in the master's process. Code
that starts a process there asks for its status later, so nothing else may take it.
"""

from __future__ import annotations

import time

from bridge.serving.orphans import INTERVAL, Zombies
from bridge.supervisor.workers import Workers

__all__ = ["Children"]


class Children:
    """The children that a master waits for.

    Args:
        workers: Its workers.
    """

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._zombies = Zombies()
        self._due: float | None = None

    def before_freeze(self) -> None:
        """See :meth:`bridge.serving.orphans.Zombies.before_freeze`."""
        self._zombies.before_freeze()

    def reap(self) -> None:
        """Reap what has ended: workers and helpers at once, orphans if nobody else does."""
        self._workers.reap()
        self._due = time.monotonic() + INTERVAL if self._zombies.look() else None

    def next_event(self) -> list[float]:
        """Return the times (seconds of the monotonic clock) at which :meth:`check` has something to do."""
        return [] if self._due is None else [self._due]

    def check(self, now: float) -> None:
        """Look again at a zombie that was there before."""
        if self._due is not None and self._due <= now:
            self.reap()
