"""What a master calls, with hooks or without."""

from __future__ import annotations

from typing import Any

__all__ = ["NO_HOOKS", "NoHooks"]


class NoHooks:
    """What a master without hooks calls."""

    def starting(self, sockets: list[Any], count: int) -> None:
        """The sockets listen; no worker has been started."""

    def new_worker(self, slot: int) -> Any:
        """A worker is about to be forked; return the object that stands for it."""

    def forked(self, worker: Any, pid: int) -> None:
        """A worker was forked."""

    def in_worker(self, worker: Any) -> Any:
        """Return what a worker calls, in the child; None for nothing."""

    def ended(self, pid: int) -> None:
        """A worker has ended and was reaped."""

    def stalled(self, pid: int, *, abort: bool) -> None:
        """A worker has stood still for too long; it is killed at once if *abort*."""

    def number_changed(self, new: int) -> None:
        """The number of workers has changed."""

    def reloading(self, config: Any, count: int) -> None:
        """A reload is about to replace the workers and may bring new settings."""

    def executing(self) -> None:
        """A new master is about to be started."""

    def exiting(self) -> None:
        """All workers have ended."""


NO_HOOKS = NoHooks()
